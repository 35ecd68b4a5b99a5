import inspect
import math
from dataclasses import fields
from pathlib import Path

import pytest
from scripts import settings_reference

import charloom as cl
from charloom.cli.run import charloom
from charloom.errors import SettingError
from charloom.settings import NetworkSettings, TextSettings, TrainingSettings

ROOT = Path(__file__).parent.parent


SHOWN = [setting for settings in settings_reference.SECTIONS.values() for setting in settings]
RANGES = [
    one
    for one in (*SHOWN, *settings_reference.STUDIES)
    if isinstance(one.allowed, settings_reference.Range) and one.field is not None
]


def _id(setting):
    return setting.keyword


def test_the_page_is_what_the_settings_say():
    assert settings_reference.PAGE.read_text("utf-8") == settings_reference.page(), "run scripts/settings_reference.py"


def test_every_option_has_a_row():
    train = charloom.commands["train"]
    options = {parameter.opts[0] for parameter in train.params if parameter.param_type_name == "option"}
    assert {setting.option for setting in SHOWN} - {"", "SOURCE..."} == options


def test_every_keyword_of_python_has_a_row():
    assert {setting.keyword for setting in SHOWN} - {""} == set(inspect.signature(cl.train).parameters)


def test_every_field_has_a_row():
    shown = {setting.field for setting in (*SHOWN, *settings_reference.STUDIES)} - {None}
    assert shown == {
        (kind, field.name) for kind in (NetworkSettings, TrainingSettings, TextSettings) for field in fields(kind)
    }


@pytest.mark.parametrize("setting", RANGES, ids=_id)
def test_a_range_ends_where_the_page_says(setting):
    (kind, name), allowed = setting.field, setting.allowed
    inside, outside = [], []
    if allowed.minimum is not None:
        inside.append(allowed.minimum)
        outside.append(allowed.minimum - 1 if allowed.whole else math.nextafter(allowed.minimum, -math.inf))
    if allowed.above is not None:
        inside.append(math.nextafter(allowed.above, math.inf))
        outside.append(allowed.above)
    if allowed.maximum is not None:
        inside.append(allowed.maximum)
        outside.append(allowed.maximum + 1 if allowed.whole else math.nextafter(allowed.maximum, math.inf))
    if allowed.below is not None:
        inside.append(math.nextafter(allowed.below, -math.inf))
        outside.append(allowed.below)
    for value in inside:
        kind(**{name: value})
    for value in outside:
        with pytest.raises(SettingError):
            kind(**{name: value})
