"""The standard streams of a command. Printing messages never fails; losing results is always an error."""

import errno
import io
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from charloom.printable import one_line, printable_lines

_STDOUT, _STDERR = 1, 2


def open_streams() -> None:
    """Prepares standard output and standard error. Call this before opening any file.

    It opens /dev/null for closed descriptors, so that none of charloom's files gets their numbers. Writing to a
    standard output that was closed stays an error. What standard error cannot take, for example because its reader has
    gone, is dropped.
    """
    for descriptor in range(_STDERR + 1):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)  # takes the lowest free number
    if sys.stdout is None:
        sys.stdout = open(_STDOUT, "w", closefd=False)  # noqa: SIM115  # stays open until the process ends
    encoding = "utf-8" if sys.stderr is None else sys.stderr.encoding
    buffered = io.BufferedWriter(_DroppingFile(_STDERR, "w", closefd=False))
    sys.stderr = io.TextIOWrapper(buffered, encoding, "backslashreplace", line_buffering=True)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a text may have characters that the locale cannot encode
        sys.stdout.reconfigure(errors="backslashreplace")


class _DroppingFile(io.FileIO):
    """A file that drops what it cannot write."""

    def write(self, data: Any) -> int:
        written: int | None = None  # if the descriptor is non-blocking and writing would block
        with suppress(OSError):
            written = super().write(data)
        return memoryview(data).nbytes if written is None else written


def print_line(line: str, *, flush: bool = True) -> None:
    """Prints a line of results on standard output."""
    print_lines([line], flush=flush)


def print_lines(lines: Iterable[str], *, flush: bool = True) -> None:
    """Prints lines of results on standard output. Flushed lines reach a reader at once."""
    sys.stdout.write("".join(f"{one_line(line)}\n" for line in lines))
    if flush:
        sys.stdout.flush()


def print_summary(lines: Iterable[str], *, may_be_closed: bool) -> None:
    """Prints lines about a command's result, which is kept even if nothing reads them.

    Args:
        lines: the lines, without line ends.
        may_be_closed: whether standard output may be closed; otherwise that is an error.
    """
    try:
        print_lines(lines)
    except OSError as error:
        if error.errno != errno.EPIPE and not (may_be_closed and error.errno == errno.EBADF):
            raise
        discard_output()


def print_text(text: str) -> None:
    """Prints generated text: unchanged into a pipe or a file, with control characters escaped on a terminal.

    A reader gets it after `flush_results`.
    """
    sys.stdout.write(printable_lines(text) if sys.stdout.isatty() else text)


def flush_results() -> None:
    """Writes what was printed and not flushed.

    Raises:
        OSError: they cannot be written.
    """
    sys.stdout.flush()


def print_message(line: str) -> None:
    """Prints a line that is not a result, on standard error."""
    sys.stderr.write(f"{one_line(line)}\n")
    sys.stderr.flush()


def discard_output() -> None:
    """Discards what could not be written to standard output. Otherwise Python would try again when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
