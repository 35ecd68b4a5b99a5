import importlib
import re
from pathlib import Path
from typing import get_args

import pytest

import charloom
from charloom import errors, server, studies
from charloom.training import Event

PAGE = (Path(__file__).parent.parent / "docs" / "reference" / "python.md").read_text("utf-8")
DOCUMENTED = re.findall(r"^::: ([\w.]+)$", PAGE, re.MULTILINE)


def _public(module):
    return [f"{module.__name__}.{name}" for name in module.__all__]


def _errors():
    return [
        f"charloom.errors.{name}"
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and kind is not errors.CharloomError
    ]


def test_every_public_name_is_documented():
    named = {*DOCUMENTED, *re.findall(r"`(charloom\.[\w.]+)`", PAGE)}
    events = [f"charloom.training.{event.__name__}" for event in get_args(Event)]
    missing = {*_public(charloom), *_public(server), *_public(studies), *_errors(), *events} - named
    assert not missing


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_documented_name_and_its_members_have_docstrings(name):
    module, _, name = name.rpartition(".")
    documented = getattr(importlib.import_module(module), name)
    assert documented.__doc__
    if isinstance(documented, type):
        for member, value in vars(documented).items():
            if not member.startswith("_") and (callable(value) or isinstance(value, property)):
                assert value.__doc__, member
