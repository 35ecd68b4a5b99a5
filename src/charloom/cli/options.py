"""Options that several commands share."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from charloom.cli.streams import tell
from charloom.settings import TextSettings, require_path

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

INTERRUPTED, WRONG_WORDS, WRONG_DATA = 130, 2, 1
"""Exit statuses other than 0."""


class FilePath(click.ParamType[Path]):
    """A file's path; what no file can be called is refused without looking for it."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        require_path(_name_of(param), value)
        return Path(value)


class FolderPath(click.ParamType[Path]):
    """A folder's path; the same."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        require_path(_name_of(param), value, folder=True)
        return Path(value)


class SourceName(click.ParamType[str]):
    """What is read: a file, a folder, a pattern, `-` or the name of a corpus."""

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
    """Returns the encoding to read a text in, UTF-8 where none is given; says so where a model's text had another.

    Args:
        encoding: as given.
        trained_from: encodings of the texts that the models were trained on.
    """
    others = sorted(other for other in set(trained_from) if other.lower() not in ("utf-8", "utf8"))
    if encoding is None and others:
        tell(f"the text is read as utf-8, the model was trained on one in {', '.join(others)}; --encoding sets another")
    return encoding or TextSettings.encoding


def require_encoding(encoding: str | None) -> None:
    """Checks that Python knows the encoding, before anything is opened.

    Raises:
        SettingError: there is none.
    """
    if encoding is not None:
        TextSettings(encoding=encoding)


def set_threads(threads: int | None) -> None:
    """Sets the threads to compute with, and says where fewer are used than were asked for."""
    from charloom.machine import use_threads

    used = use_threads(threads)
    if threads is not None and used != threads:
        tell(f"threads {used} instead of {threads}: this process may use {used} cores")
