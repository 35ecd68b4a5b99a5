"""Fills in page templates. Each page is a file that opens without a network."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from charloom.artifacts import OutputKind

_BEGINNING = re.compile(
    rb"\s*<!doctype html>\s*<html[^>]*>\s*<head>\s*<meta charset=[^>]*>\s*<meta name=.generator. content=.charloom\W"
)
_MAX_BEGINNING_BYTES = 1000


def _is_own(path: Path) -> bool:
    with open(path, "rb") as file:
        return _BEGINNING.match(file.read(_MAX_BEGINNING_BYTES)) is not None


PAGE = OutputKind("page", "page.html", "report", _is_own)
"""A page may replace only other charloom pages, which are recognized by the beginning of each template."""


def rendered(template: str, filters: dict[str, Callable[..., Any]] | None = None, **values: Any) -> str:
    """Returns the page that `template` makes of `values`, which it escapes."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("charloom.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters or {}
    page: str = environment.get_template(template).render(**values)
    return page


def script_data(value: Any) -> Any:
    """Returns `value` as JSON that is safe in a script element, whatever text it contains."""
    from markupsafe import Markup

    # A "<" could end the element or start a comment.
    return Markup(json.dumps(value, separators=(",", ":")).replace("<", "\\u003c"))
