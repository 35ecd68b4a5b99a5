"""Options that several commands share."""

from collections.abc import Callable
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

INTERRUPTED, WRONG_WORDS, WRONG_DATA = 130, 2, 1
"""Exit statuses other than 0."""

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


def set_threads(threads: int | None) -> None:
    """Sets the threads to compute with, and says where fewer are used than were asked for."""
    from charloom.machine import use_threads

    used = use_threads(threads)
    if threads is not None and used != threads:
        click.echo(f"threads {used} instead of {threads}: this process may use {used} cores", err=True)
