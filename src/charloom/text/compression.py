"""Compressed files, told by their names: `.gz`, `.xz` and `.zst`."""

import os
import zlib
from collections.abc import Callable

from charloom.errors import SourceError


def uncompressed_name(path: str) -> str:
    """Returns `path` without the suffix of a compressed file.

    >>> uncompressed_name("book.txt.gz"), uncompressed_name("book.txt")
    ('book.txt', 'book.txt')
    """
    stem, suffix = os.path.splitext(path)
    return stem if suffix.lower() in _DECOMPRESS else path


def decompressed(path: str, data: bytes) -> bytes:
    """Returns what `data`, the content of the file at `path`, holds: itself, where that is no compressed file's name.

    Raises:
        SourceError: it is damaged, or cut off.
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in _DECOMPRESS:
        return data
    try:
        return _DECOMPRESS[suffix](data)
    except (ValueError, OSError, EOFError) as error:
        raise SourceError(f"{path} is no {suffix} file, or a damaged one ({error}). Copy it anew.") from error


def _gunzip(data: bytes) -> bytes:
    import gzip

    try:
        return gzip.decompress(data)
    except zlib.error as error:
        raise ValueError(error) from error


def _unxz(data: bytes) -> bytes:
    import lzma

    try:
        return lzma.decompress(data)
    except lzma.LZMAError as error:
        raise ValueError(error) from error


def _unzstd(data: bytes) -> bytes:
    import zstandard

    whole = []
    try:
        while data:  # one frame after another, as `cat a.zst b.zst` makes them
            frame = zstandard.ZstdDecompressor().decompressobj()
            whole.append(frame.decompress(data))
            if not frame.eof:
                raise EOFError("it ends before its end was reached")
            data = frame.unused_data
    except zstandard.ZstdError as error:
        raise ValueError(error) from error
    return b"".join(whole)


_DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {".gz": _gunzip, ".xz": _unxz, ".zst": _unzstd}
