"""The standard streams of a command, as it needs them: diagnostics never fail, results never get lost in silence."""

import errno
import io
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from charloom.printable import lines_shown, one_line

_STDOUT, _STDERR = 1, 2


def open_streams() -> None:
    """Prepares standard output and standard error, before anything else is opened.

    Closed descriptors are filled, so that no file of charloom's gets their numbers. Writing to a standard output that
    was closed is an error. What cannot be written to standard error, because nobody reads it any more, is dropped.
    """
    for descriptor in range(_STDERR + 1):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)  # takes the lowest free number
    if sys.stdout is None:
        sys.stdout = open(_STDOUT, "w", closefd=False)  # noqa: SIM115  # stays open until the process ends
    encoding = "utf-8" if sys.stderr is None else sys.stderr.encoding
    unfailing = io.BufferedWriter(_Unfailing(_STDERR, "w", closefd=False))
    sys.stderr = io.TextIOWrapper(unfailing, encoding, "backslashreplace", line_buffering=True)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a text may have letters that the locale does not have
        sys.stdout.reconfigure(errors="backslashreplace")


class _Unfailing(io.FileIO):
    """A file that drops what it cannot write."""

    def write(self, data: Any) -> int:
        written: int | None = None  # where writing would have to wait, and the descriptor says not to
        with suppress(OSError):
            written = super().write(data)
        return memoryview(data).nbytes if written is None else written


def print_line(line: str) -> None:
    """Prints a line of results on standard output."""
    print_lines([line])


def print_lines(lines: Iterable[str]) -> None:
    """Prints lines of results on standard output, where a reader sees them at once."""
    sys.stdout.write("".join(f"{one_line(line)}\n" for line in lines))
    sys.stdout.flush()


def print_summary(lines: Iterable[str], *, may_be_closed: bool) -> None:
    """Prints lines about what a command made, which it keeps whether or not somebody reads them.

    Args:
        lines: without their ends.
        may_be_closed: whether standard output may be closed; else that is an error.
    """
    try:
        print_lines(lines)
    except OSError as error:
        if error.errno != errno.EPIPE and not (may_be_closed and error.errno == errno.EBADF):
            raise
        forget_output()


def print_text(text: str) -> None:
    """Prints a model's text: as it is into a pipe or a file, with control characters escaped on a terminal."""
    sys.stdout.write(lines_shown(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def flush_results() -> None:
    """Writes what is left of the results.

    Raises:
        OSError: it cannot be written.
    """
    sys.stdout.flush()


def tell(line: str) -> None:
    """Prints a line on standard error: whatever is no result."""
    sys.stderr.write(f"{one_line(line)}\n")
    sys.stderr.flush()


def forget_output() -> None:
    """Drops what could not be written to standard output, which Python would try to write again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
