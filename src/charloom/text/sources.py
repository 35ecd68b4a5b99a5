"""Sources: the files that a user names, and what they hold, piece by piece.

A source is a file, a folder, a glob pattern, `-` for standard input, or a name of the catalog. A compressed file is
read as what it holds.
"""

import glob
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from charloom.errors import SourceError
from charloom.settings import TextSettings, require_path
from charloom.text.catalog import CATALOG, read_catalog_bytes, unknown_name
from charloom.text.compression import decompressed, is_compressed
from charloom.text.decoding import has_no_zero_bytes

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
            raise SourceError(f"cannot read {self.name}: {error.strerror or error}.") from error


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
    left out; so is a file that was found before. A notice says so. Hidden files are not looked at.

    Raises:
        SourceError: a source is missing, or cannot be read.
    """
    files: list[SourceFile] = []
    skipped: list[str] = []
    repeated: list[str] = []
    paths: set[str] = set()
    for source in sources:
        for file in _files_of(os.fspath(source), standard_input):
            # A text given twice would be learnt from and held out at once.
            if file.path in paths:
                repeated.append(file.name)
            elif not file.chosen_by_name and _is_binary(file, settings):
                skipped.append(file.name)
            else:
                paths.add(file.path)
                files.append(file)
    shown = ", ".join(os.fspath(source) for source in sources) or "no source given"
    if skipped and not files:
        raise SourceError(f"{shown}: no text, only binary files. Pass --bytes to model raw bytes.")
    return Sources(
        name=", ".join(_base_name(os.fspath(source)) for source in sources),
        shown=shown,
        files=tuple(files),
        notices=tuple(
            f"left out as {why}: {_few(names)}"
            for why, names in (("binary", skipped), ("given twice", repeated))
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
        SourceError: there is none.
    """
    if sys.stdin is None:
        raise SourceError("there is no standard input to read.")
    # What has arrived is given out at once, however little it is.
    while chunk := os.read(sys.stdin.fileno(), _MOST_AT_ONCE):
        yield chunk


def read_standard_input() -> bytes:
    """Returns all that comes from standard input.

    Raises:
        SourceError: there is none.
    """
    if sys.stdin is None:
        raise SourceError("there is no standard input to read.")
    return sys.stdin.buffer.read()


def _files_of(source: str, standard_input: bytes | None) -> Iterator[SourceFile]:
    if source:
        require_path("source", source, folder=True)
    else:
        raise SourceError("a source's name is empty. Give a file, a folder, a pattern or a text of the catalog.")
    if source == "-":
        held = read_standard_input() if standard_input is None else standard_input
        yield SourceFile("standard input", "-", chosen_by_name=True, held=held)
    elif os.path.isdir(source):
        paths = list(_walk(source))
        if not paths:
            raise SourceError(f"{source}: no files in this folder. Give a folder that has text files.")
        for path in paths:
            yield _file(path, chosen_by_name=False)
    elif os.path.lexists(source):
        yield _file(source, chosen_by_name=True)
    elif any(character in source for character in _GLOB_CHARACTERS):
        paths = [path for path in sorted(glob.glob(source, recursive=True)) if os.path.isfile(path)]
        if not paths:
            raise SourceError(f"{source}: no file matches this pattern.")
        for path in paths:
            yield _file(path, chosen_by_name=False)
    elif source in CATALOG:
        yield catalog_file(source)
    else:
        raise SourceError(_not_found(source))


def _walk(folder: str) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = os.path.join(parent, name)
            if not name.startswith(".") and os.path.isfile(path):
                yield path


def _file(path: str, *, chosen_by_name: bool) -> SourceFile:
    try:
        found = os.stat(path)
        real = os.path.realpath(path)
        if stat.S_ISREG(found.st_mode):
            return SourceFile(path, real, chosen_by_name, stamp_of(found))
        with open(path, "rb") as pipe:
            return SourceFile(path, real, chosen_by_name, held=b"".join(decompressed(path, pipe)))
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}.") from error


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
