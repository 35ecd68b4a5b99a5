"""Compressed files, recognized by their names: `.gz`, `.xz` and `.zst`."""

import os
from collections.abc import Callable, Iterator
from typing import IO

from charloom.errors import SourceError

_ZSTD_SLICE = 1 << 10
_CHUNK = 1 << 17  # small enough that the decoded text stays in the processor's cache


def uncompressed_name(path: str) -> str:
    """Returns `path` without its suffix if that marks a compressed file.

    >>> uncompressed_name("book.txt.gz"), uncompressed_name("book.txt")
    ('book.txt', 'book.txt')
    """
    stem, _ = os.path.splitext(path)
    return stem if is_compressed(path) else path


def is_compressed(path: str) -> bool:
    """Returns whether `path` has the suffix of a compressed file."""
    return os.path.splitext(path)[1].lower() in _DECOMPRESS


def decompressed(path: str, file: IO[bytes]) -> Iterator[bytes]:
    """Yields the decompressed content of `file` in chunks, or its bytes if `path` has no suffix of a compressed file.

    Raises:
        SourceError: the file is damaged or truncated.
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix in _DECOMPRESS:
        yield from _DECOMPRESS[suffix](file, path)
    else:
        yield from iter(lambda: file.read(_CHUNK), b"")


def _gunzip(file: IO[bytes], path: str) -> Iterator[bytes]:
    import gzip
    import zlib

    try:
        with gzip.open(file) as unpacked:
            yield from iter(lambda: unpacked.read(_CHUNK), b"")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _damaged(path, error) from error


def _unxz(file: IO[bytes], path: str) -> Iterator[bytes]:
    import lzma

    stream = None
    try:
        for data in iter(lambda: file.read(_CHUNK), b""):
            while data:  # a file may have several streams, with zeros between them
                if stream is None or stream.eof:
                    data = data.lstrip(b"\0")
                    if not data:
                        break
                    stream = lzma.LZMADecompressor()
                yield stream.decompress(data, _CHUNK)
                while not stream.eof and not stream.needs_input:
                    yield stream.decompress(b"", _CHUNK)
                data = stream.unused_data if stream.eof else b""
    except lzma.LZMAError as error:
        raise _damaged(path, error) from error
    if stream is not None and not stream.eof:
        raise _damaged(path, "it ends too early")


def _unzstd(file: IO[bytes], path: str) -> Iterator[bytes]:
    import zstandard

    unpacker = zstandard.ZstdDecompressor(max_window_size=1 << 31)
    frame = unpacker.decompressobj()
    is_whole = True
    buffered: list[bytes] = []
    try:
        # A slice is decompressed in one call. For a repetitive text the result is a few hundred times as long.
        for data in iter(lambda: file.read(_ZSTD_SLICE), b""):
            while data:  # a file may have several frames, as `cat a.zst b.zst` makes them
                if frame.eof:
                    frame = unpacker.decompressobj()
                buffered.append(frame.decompress(data))
                data, is_whole = frame.unused_data, frame.eof
            if sum(map(len, buffered)) >= _CHUNK:
                yield b"".join(buffered)
                buffered = []
    except zstandard.ZstdError as error:
        raise _damaged(path, error) from error
    if not is_whole:
        raise _damaged(path, "it ends too early")
    yield b"".join(buffered)


def _damaged(path: str, why: object) -> SourceError:
    suffix = os.path.splitext(path)[1].lower()
    return SourceError(f"{path} is not a valid {suffix} file, or it is damaged ({why}). Copy it again.")


_DECOMPRESS: dict[str, Callable[[IO[bytes], str], Iterator[bytes]]] = {".gz": _gunzip, ".xz": _unxz, ".zst": _unzstd}
