"""Sources: the files that a user names, and their content, chunk by chunk.

A source is a file, a folder, a glob pattern, `-` for standard input, or the name of a corpus. Compressed files are
decompressed.
"""

import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from charloom.errors import SourceError
from charloom.settings import TextSettings, require_path
from charloom.text.compression import decompressed, is_compressed
from charloom.text.corpora import CORPORA, read_named_corpus_bytes, unknown_corpus_message
from charloom.text.decoding import has_no_zero_bytes
from charloom.text.folders import SkippedFiles, files_in, files_like, unreadable

_GLOB_CHARACTERS = "*?["
_COMPRESSION_RATIO = 4
_MAX_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class SourceFile:
    """A file, standard input, or a named corpus.

    Attributes:
        name: its path or name, for messages.
        path: its path, with links resolved.
        chosen_by_name: whether the user named this file itself, not a folder or a pattern.
        stamp: the size in bytes and the time of the last change in nanoseconds; None if there is `content`.
        content: the bytes of a source that is not a regular file, which can be read only once; None for other files.
    """

    name: str
    path: str
    chosen_by_name: bool
    stamp: tuple[int, int] | None = None
    content: bytes | None = None

    def chunks(self) -> Iterator[bytes]:
        """Yields the decompressed content of the file in chunks.

        Raises:
            SourceError: the file cannot be read, or has changed since it was found.
        """
        if self.content is not None:
            yield self.content
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
    """All files of the sources that a user named, in order.

    Attributes:
        name: the base names of the sources.
        shown: the sources as the user gave them.
        files: the files, each once.
        notices: one line for each kind of file that was left out.
    """

    name: str
    shown: str
    files: tuple[SourceFile, ...]
    notices: tuple[str, ...]

    @property
    def paths(self) -> frozenset[str]:
        """The paths of the files, with links resolved."""
        return frozenset(file.path for file in self.files)

    @property
    def size(self) -> int | None:
        """The bytes of all files on disk; None if some are compressed."""
        if any(is_compressed(file.path) for file in self.files):
            return None
        return sum(file.stamp[0] for file in self.files if file.stamp is not None)

    @property
    def estimated_size(self) -> int:
        """The bytes of all files on disk, with an estimate for compressed files."""
        return sum(
            file.stamp[0] * (_COMPRESSION_RATIO if is_compressed(file.path) else 1)
            for file in self.files
            if file.stamp is not None
        )

    def empty(self) -> SourceError:
        """Returns the error for sources without any text."""
        return SourceError(f"{self.shown}: empty. Give a text to train on.")


def find_sources(
    sources: Sequence[str | os.PathLike[str]], settings: TextSettings, standard_input: bytes | None = None
) -> Sources:
    """Returns the files of `sources` in the given order, with the files of folders and patterns sorted.

    In a folder or a pattern, binary files, special files and links to folders are left out. So is every file that was
    already found. A notice reports each kind. Hidden files are ignored.

    Args:
        sources: files, folders, patterns, names of corpora, or `-`.
        settings: how the files are decoded.
        standard_input: the content for `-`, if it was read already.

    Raises:
        SourceError: a source is missing, or a source or one of its folders cannot be read.
    """
    files: list[SourceFile] = []
    binary: list[str] = []
    repeated: list[str] = []
    skipped = SkippedFiles()
    paths: set[str] = set()
    for source in sources:
        for file in _files_of(os.fspath(source), standard_input, skipped):
            # A text that is given twice would be both trained on and held out.
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
                ("links to folders", skipped.links),
                ("special files", skipped.others),
            )
            if names
        ),
    )


def changed(name: str) -> SourceError:
    """Returns the error for a text that has changed."""
    return SourceError(f"{name} changed while it was read. Wait until it is complete, or give a copy of it.")


def named_corpus_file(name: str) -> SourceFile:
    """Returns the corpus `name` as a source.

    Raises:
        SourceError: the corpus is not available.
    """
    return SourceFile(name, f"corpus:{name}", chosen_by_name=True, content=read_named_corpus_bytes(name))


def stamp_of(found: os.stat_result) -> tuple[int, int]:
    """Returns a file's size and time of change, for `SourceFile.stamp`."""
    return found.st_size, found.st_mtime_ns


def standard_input_chunks() -> Iterator[bytes]:
    """Yields the bytes of standard input as they arrive.

    Raises:
        SourceError: there is no standard input, or it cannot be read.
    """
    if sys.stdin is None:
        raise SourceError("there is no standard input to read.")
    try:
        yield from _arriving(sys.stdin.fileno())
    except OSError as error:
        raise unreadable("standard input", error) from error


def is_pipe(path: str | os.PathLike[str]) -> bool:
    """Returns whether `path` is a pipe or a device without a compressed file's name."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)) and not is_compressed(os.fspath(path))


def pipe_chunks(path: str) -> Iterator[bytes]:
    """Yields the bytes of the pipe or device at `path` as they arrive.

    Raises:
        SourceError: the pipe or device cannot be read.
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
    # `os.read` returns whatever has arrived, without waiting for more.
    while chunk := os.read(descriptor, _MAX_CHUNK_BYTES):
        yield chunk


def read_standard_input() -> bytes:
    """Returns all bytes of standard input.

    Raises:
        SourceError: there is no standard input, or it cannot be read.
    """
    if sys.stdin is None:
        raise SourceError("there is no standard input to read.")
    try:
        return sys.stdin.buffer.read()
    except OSError as error:
        raise unreadable("standard input", error) from error


def _files_of(source: str, standard_input: bytes | None, skipped: SkippedFiles) -> Iterator[SourceFile]:
    if source:
        require_path("source", source, folder=True)
    else:
        raise SourceError("a source's name is empty. Give a file, a folder, a pattern or the name of a corpus.")
    if source == "-":
        content = read_standard_input() if standard_input is None else standard_input
        yield SourceFile("standard input", "-", chosen_by_name=True, content=content)
    elif os.path.isdir(source):
        paths = list(files_in(source, skipped))
        if not paths:
            raise SourceError(f"{source}: this folder has no files. Give a folder that has text files.")
        for path in paths:
            yield _file(path, chosen_by_name=False)
    elif os.path.lexists(source):
        yield _file(source, chosen_by_name=True)
    elif any(character in source for character in _GLOB_CHARACTERS):
        paths = files_like(source, skipped)
        if not paths:
            raise SourceError(f"{source}: no file matches this pattern. Check the pattern.")
        for path in paths:
            yield _file(path, chosen_by_name=False)
    elif source in CORPORA:
        yield named_corpus_file(source)
    else:
        raise SourceError(_not_found(source))


def _file(path: str, *, chosen_by_name: bool) -> SourceFile:
    try:
        found = os.stat(path)
        real = os.path.realpath(path)
        if stat.S_ISREG(found.st_mode):
            return SourceFile(path, real, chosen_by_name, stamp_of(found))
        with open(path, "rb") as pipe:
            return SourceFile(path, real, chosen_by_name, content=b"".join(decompressed(path, pipe)))
    except OSError as error:
        raise unreadable(path, error) from error


def _is_binary(file: SourceFile, settings: TextSettings) -> bool:
    if settings.units == "bytes" or not has_no_zero_bytes(settings.encoding):
        return False
    return b"\0" in next(file.chunks(), b"")  # most binary files have a zero byte near the beginning


def _not_found(source: str) -> str:
    if os.path.basename(source) == source and not os.path.splitext(source)[1]:
        return f"no file or folder is named {source}, and {unknown_corpus_message(source)}"
    return f"no file or folder is named {source}. Check the path. `charloom corpora` lists texts that need no file."


def _base_name(source: str) -> str:
    if source == "-":
        return "standard input"
    # Bytes of the name that are not UTF-8 are replaced.
    return os.fsencode(os.path.basename(os.path.abspath(source))).decode("utf-8", "replace")


def _few(names: Sequence[str]) -> str:
    return ", ".join(map(_base_name, names[:3])) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
