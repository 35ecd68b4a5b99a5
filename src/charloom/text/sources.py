"""Sources: the files that a user names, and what they hold, piece by piece.

A source is a file, a folder, a glob pattern, `-` for standard input, or a name of the catalog. A compressed file is
read as what it holds.
"""

import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from charloom.errors import SourceError
from charloom.settings import TextSettings, require_path
from charloom.text.compression import decompressed, is_compressed
from charloom.text.corpora import CATALOG, read_catalog_bytes, unknown_name
from charloom.text.decoding import has_no_zero_bytes
from charloom.text.folders import PassedOver, files_in, files_like, unreadable

_GLOB_CHARACTERS = "*?["
_COMPRESSION = 4
_MOST_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class SourceFile:
    """A file, or what stands for one.

    Attributes:
        name: as it is called in messages: its path, or that of what is no file.
        path: where it is, with links resolved.
        chosen_by_name: whether the user named this very file.
        stamp: bytes on disk, and nanoseconds of the last change; None where `held` has what it holds.
        held: the bytes of what is no ordinary file, and can be read only once.
    """

    name: str
    path: str
    chosen_by_name: bool
    stamp: tuple[int, int] | None = None
    held: bytes | None = None

    def chunks(self) -> Iterator[bytes]:
        """Yields the bytes that the file holds, a few at a time.

        Raises:
            SourceError: it cannot be read, or is another than when it was found.
        """
        if self.held is not None:
            yield self.held
            return
        try:
            with open(self.name, "rb") as file:
                yield from decompressed(self.name, file)
                if self.stamp != stamp_of(os.fstat(file.fileno())):
                    raise changed(self.name)
        except OSError as error:
            raise unreadable(self.name, error) from error


@dataclass(frozen=True)
class Sources:
    """All files of what a user named, in order.

    Attributes:
        name: the sources' base names.
        shown: the sources as they were given.
        files: each once.
        notices: a line for each kind of file that was left out.
    """

    name: str
    shown: str
    files: tuple[SourceFile, ...]
    notices: tuple[str, ...]

    @property
    def paths(self) -> frozenset[str]:
        """Where the files are, with links resolved."""
        return frozenset(file.path for file in self.files)

    @property
    def size(self) -> int | None:
        """The bytes of all files, without what is in memory already; None where some are compressed."""
        if any(is_compressed(file.path) for file in self.files):
            return None
        return sum(file.stamp[0] for file in self.files if file.stamp is not None)

    @property
    def likely_size(self) -> int:
        """The same, a compressed file's guessed at."""
        return sum(
            file.stamp[0] * (_COMPRESSION if is_compressed(file.path) else 1)
            for file in self.files
            if file.stamp is not None
        )

    def empty(self) -> SourceError:
        """Returns what to say where none of the files holds anything."""
        return SourceError(f"{self.shown}: empty. Give a text to learn from.")


def find_sources(
    sources: Sequence[str | os.PathLike[str]], settings: TextSettings, standard_input: bytes | None = None
) -> Sources:
    """Returns the files of `sources`, in the order given (folders and globs sorted).

    `standard_input` stands in for what `-` would read. In a folder or a glob, files that begin as binary ones do are
    left out; so is a file that was found before, what is no ordinary file, and a link to a folder. A notice says so.
    Hidden files are not looked at.

    Raises:
        SourceError: a source is missing, or cannot be read, or a folder inside of it.
    """
    files: list[SourceFile] = []
    binary: list[str] = []
    repeated: list[str] = []
    passed_over = PassedOver()
    paths: set[str] = set()
    for source in sources:
        for file in _files_of(os.fspath(source), standard_input, passed_over):
            # A text given twice would be learnt from and held out at once.
            if file.path in paths:
                repeated.append(file.name)
            elif not file.chosen_by_name and _is_binary(file, settings):
                binary.append(file.name)
            else:
                paths.add(file.path)
                files.append(file)
    shown = ", ".join(os.fspath(source) for source in sources) or "no source given"
    if binary and not files:
        raise SourceError(f"{shown}: no text, only binary files. Pass --bytes to model raw bytes.")
    return Sources(
        name=", ".join(_base_name(os.fspath(source)) for source in sources),
        shown=shown,
        files=tuple(files),
        notices=tuple(
            f"left out as {why}: {_few(names)}"
            for why, names in (
                ("binary", binary),
                ("given twice", repeated),
                ("links to folders", passed_over.links),
                ("no ordinary files", passed_over.others),
            )
            if names
        ),
    )


def changed(name: str) -> SourceError:
    """Returns what to say of a text that is another than it was."""
    return SourceError(f"{name} changed while it was read. Wait until it is whole, or give a copy of it.")


def catalog_file(name: str) -> SourceFile:
    """Returns the text `name` of the catalog.

    Raises:
        SourceError: it cannot be had.
    """
    return SourceFile(name, f"catalog:{name}", chosen_by_name=True, held=read_catalog_bytes(name))


def stamp_of(found: os.stat_result) -> tuple[int, int]:
    """Returns what a file's `SourceFile.stamp` is."""
    return found.st_size, found.st_mtime_ns


def standard_input_chunks() -> Iterator[bytes]:
    """Yields what comes from standard input, as it comes.

    Raises:
        SourceError: there is none, or it cannot be read.
    """
    if sys.stdin is None:
        raise SourceError("there is no standard input to read.")
    try:
        yield from _arriving(sys.stdin.fileno())
    except OSError as error:
        raise unreadable("standard input", error) from error


def is_pipe(path: str | os.PathLike[str]) -> bool:
    """Returns whether `path` is a pipe or a device whose bytes are a text as they come; compressed ones are not."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)) and not is_compressed(os.fspath(path))


def pipe_chunks(path: str) -> Iterator[bytes]:
    """Yields what comes from the pipe or device at `path`, as it comes.

    Raises:
        SourceError: it cannot be read.
    """
    try:
        pipe = os.open(path, os.O_RDONLY)
        try:
            yield from _arriving(pipe)
        finally:
            os.close(pipe)
    except OSError as error:
        raise unreadable(path, error) from error


def _arriving(descriptor: int) -> Iterator[bytes]:
    # What has arrived is given out at once, however little it is.
    while chunk := os.read(descriptor, _MOST_AT_ONCE):
        yield chunk


def read_standard_input() -> bytes:
    """Returns all that comes from standard input.

    Raises:
        SourceError: there is none, or it cannot be read.
    """
    if sys.stdin is None:
        raise SourceError("there is no standard input to read.")
    try:
        return sys.stdin.buffer.read()
    except OSError as error:
        raise unreadable("standard input", error) from error


def _files_of(source: str, standard_input: bytes | None, passed_over: PassedOver) -> Iterator[SourceFile]:
    if source:
        require_path("source", source, folder=True)
    else:
        raise SourceError("a source's name is empty. Give a file, a folder, a pattern or a text of the catalog.")
    if source == "-":
        held = read_standard_input() if standard_input is None else standard_input
        yield SourceFile("standard input", "-", chosen_by_name=True, held=held)
    elif os.path.isdir(source):
        paths = list(files_in(source, passed_over))
        if not paths:
            raise SourceError(f"{source}: no files in this folder. Give a folder that has text files.")
        for path in paths:
            yield _file(path, chosen_by_name=False)
    elif os.path.lexists(source):
        yield _file(source, chosen_by_name=True)
    elif any(character in source for character in _GLOB_CHARACTERS):
        paths = files_like(source, passed_over)
        if not paths:
            raise SourceError(f"{source}: no file matches this pattern.")
        for path in paths:
            yield _file(path, chosen_by_name=False)
    elif source in CATALOG:
        yield catalog_file(source)
    else:
        raise SourceError(_not_found(source))


def _file(path: str, *, chosen_by_name: bool) -> SourceFile:
    try:
        found = os.stat(path)
        real = os.path.realpath(path)
        if stat.S_ISREG(found.st_mode):
            return SourceFile(path, real, chosen_by_name, stamp_of(found))
        with open(path, "rb") as pipe:
            return SourceFile(path, real, chosen_by_name, held=b"".join(decompressed(path, pipe)))
    except OSError as error:
        raise unreadable(path, error) from error


def _is_binary(file: SourceFile, settings: TextSettings) -> bool:
    if settings.units == "bytes" or not has_no_zero_bytes(settings.encoding):
        return False
    return b"\0" in next(file.chunks(), b"")  # where binary files have one


def _not_found(source: str) -> str:
    if os.path.basename(source) == source and not os.path.splitext(source)[1]:
        return f"no file or folder is named {source}, and {unknown_name(source)}"
    return f"no file or folder is named {source}. Check the path; `charloom corpora` lists texts that need none."


def _base_name(source: str) -> str:
    if source == "-":
        return "standard input"
    # A name that is no UTF-8 is kept as far as it is.
    return os.fsencode(os.path.basename(os.path.abspath(source))).decode("utf-8", "replace")


def _few(names: Sequence[str]) -> str:
    return ", ".join(map(_base_name, names[:3])) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
