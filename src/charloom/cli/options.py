"""Options that several commands share."""

from collections.abc import Callable
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

json_option: Decorator = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print JSON on standard output, everything else on standard error.",
)

threads_option: Decorator = click.option(
    "--threads",
    type=int,
    metavar="N",
    help="Threads to compute with.  [default: the cores this process may use]",
)
