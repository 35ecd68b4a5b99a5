#!/usr/bin/env python3
"""Writes docs/reference/cli.md from the help pages of the commands."""

from collections.abc import Iterator
from pathlib import Path

import click

from charloom.artifacts import write_bytes
from charloom.cli.run import charloom

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "cli.md"
_WIDTH = 100


def main() -> None:
    """Writes the page."""
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(PAGE, page().encode())


def page() -> str:
    """Returns the page in Markdown: one section per command."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Command line"
    yield ""
    yield "`scripts/cli_reference.py` writes this page from the help pages that `charloom COMMAND --help` prints."
    yield ""
    yield from _help(charloom, "charloom")
    for name in sorted(charloom.commands):
        yield ""
        yield f"## charloom {name}"
        yield ""
        yield from _help(charloom.commands[name], f"charloom {name}")


def _help(command: click.Command, name: str) -> Iterator[str]:
    context = click.Context(
        command, info_name=name, terminal_width=_WIDTH, max_content_width=_WIDTH, help_option_names=["-h", "--help"]
    )
    yield "```text"
    yield from command.get_help(context).splitlines()
    yield "```"


if __name__ == "__main__":
    main()
