"""Options that several commands share."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from charloom.cli.streams import print_message
from charloom.settings import TextSettings, require_path

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

FAILURE, USAGE_ERROR, INTERRUPTED = 1, 2, 130
"""Exit statuses other than 0."""


class FilePath(click.ParamType[Path]):
    """A file's path. A name that no file can have is refused without looking for it."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        require_path(_name_of(param), value)
        return Path(value)


class FolderPath(click.ParamType[Path]):
    """A folder's path. A name that no folder can have is refused without looking for it."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        require_path(_name_of(param), value, folder=True)
        return Path(value)


class SourceName(click.ParamType[str]):
    """A text to read: a file, a folder, a pattern, `-`, or a name from `charloom corpora`."""

    name = "source"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value:  # `find_sources` refuses an empty one
            require_path(_name_of(param), value, folder=True)
        return str(value)


def _name_of(parameter: click.Parameter | None) -> str:
    if parameter is None:
        return "path"
    return parameter.opts[0] if isinstance(parameter, click.Option) else f"argument {parameter.name}"


json_option: Decorator = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print JSON on standard output and everything else on standard error.",
)

threads_option: Decorator = click.option(
    "--threads",
    type=int,
    metavar="N",
    help="Number of threads.  [default: the cores this process may use]",
)

encoding_option: Decorator = click.option("--encoding", metavar="NAME", help="Encoding of the text.  [default: utf-8]")


def encoding_or_default(encoding: str | None, trained_from: Iterable[str]) -> str:
    """Returns the encoding of a text: the given one, or UTF-8. Prints a note if a model's text had another.

    Args:
        encoding: the value of --encoding; None if it was not given.
        trained_from: the encodings of the texts that the models were trained on.
    """
    others = sorted(other for other in set(trained_from) if other.lower() not in ("utf-8", "utf8"))
    if encoding is None and others:
        print_message(
            f"reading the text as utf-8, but the model was trained on a text in {', '.join(others)}: "
            "set the encoding with --encoding"
        )
    return encoding or TextSettings.encoding


def require_encoding(encoding: str | None) -> None:
    """Checks that Python knows the encoding, before any file is opened.

    Raises:
        SettingError: Python does not know it.
    """
    if encoding is not None:
        TextSettings(encoding=encoding)


def set_threads(threads: int | None) -> None:
    """Sets the number of threads, and prints a note if fewer are available."""
    from charloom.machine import use_threads

    used = use_threads(threads)
    if threads is not None and used != threads:
        print_message(f"threads: {used} instead of {threads}, because this process may use {used} cores")
