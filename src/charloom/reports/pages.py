"""Pages: templates filled in, each a file that opens without a network."""

import json
from collections.abc import Callable
from typing import Any


def rendered(template: str, filters: dict[str, Callable[..., Any]] | None = None, **values: Any) -> str:
    """Returns the page that `template` makes of `values`; what it is given is escaped."""
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
    """Returns `value` as JSON that may stand in a script element, whatever text is in it."""
    from markupsafe import Markup

    # A "<" could end the element, or begin a comment.
    return Markup(json.dumps(value, separators=(",", ":")).replace("<", "\\u003c"))
