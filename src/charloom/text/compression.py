"""Compressed files, told by their names: `.gz`, `.xz` and `.zst`."""

import os
from collections.abc import Callable, Iterator
from typing import IO

from charloom.errors import SourceError

_CHUNK = 1 << 17  # few enough bytes that what is made of them stays in the cache


def uncompressed_name(path: str) -> str:
    """Returns `path` without the suffix of a compressed file.

    >>> uncompressed_name("book.txt.gz"), uncompressed_name("book.txt")
    ('book.txt', 'book.txt')
    """
    stem, suffix = os.path.splitext(path)
    return stem if suffix.lower() in _DECOMPRESS else path


def decompressed(path: str, file: IO[bytes]) -> Iterator[bytes]:
    """Yields what `file`, opened at `path`, holds, in chunks; its bytes, where that is no compressed file's name.

    Raises:
        SourceError: it is damaged, or cut off.
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

    try:
        with lzma.open(file) as unpacked:
            yield from iter(lambda: unpacked.read(_CHUNK), b"")
    except (lzma.LZMAError, EOFError) as error:
        raise _damaged(path, error) from error


def _unzstd(file: IO[bytes], path: str) -> Iterator[bytes]:
    import zstandard

    frame = zstandard.ZstdDecompressor().decompressobj()
    is_whole = True
    try:
        for data in iter(lambda: file.read(_CHUNK), b""):
            while data:  # one frame after another, as `cat a.zst b.zst` makes them
                if frame.eof:
                    frame = zstandard.ZstdDecompressor().decompressobj()
                yield frame.decompress(data)
                data, is_whole = frame.unused_data, frame.eof
    except zstandard.ZstdError as error:
        raise _damaged(path, error) from error
    if not is_whole:
        raise _damaged(path, "it ends before its end was reached")


def _damaged(path: str, why: object) -> SourceError:
    suffix = os.path.splitext(path)[1].lower()
    return SourceError(f"{path} is no {suffix} file, or a damaged one ({why}). Copy it anew.")


_DECOMPRESS: dict[str, Callable[[IO[bytes], str], Iterator[bytes]]] = {".gz": _gunzip, ".xz": _unxz, ".zst": _unzstd}
