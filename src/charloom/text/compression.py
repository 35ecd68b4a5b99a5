"""Compressed files, told by their names: `.gz`, `.xz` and `.zst`."""

import os
from collections.abc import Callable, Iterator
from typing import IO

from charloom.errors import SourceError

_ZSTD_SLICE = 1 << 10
_CHUNK = 1 << 17  # few enough bytes that what is made of them stays in the cache


def uncompressed_name(path: str) -> str:
    """Returns `path` without the suffix of a compressed file.

    >>> uncompressed_name("book.txt.gz"), uncompressed_name("book.txt")
    ('book.txt', 'book.txt')
    """
    stem, _ = os.path.splitext(path)
    return stem if is_compressed(path) else path


def is_compressed(path: str) -> bool:
    """Returns whether `path` is a compressed file's name."""
    return os.path.splitext(path)[1].lower() in _DECOMPRESS


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

    stream = None
    try:
        for data in iter(lambda: file.read(_CHUNK), b""):
            while data:  # one stream after another, with zeros in between perhaps
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
        raise _damaged(path, "it ends before its end was reached")


def _unzstd(file: IO[bytes], path: str) -> Iterator[bytes]:
    import zstandard

    unpacker = zstandard.ZstdDecompressor(max_window_size=1 << 31)
    frame = unpacker.decompressobj()
    is_whole = True
    held: list[bytes] = []
    try:
        # What a slice holds comes at once: a few hundred times as much, where a text repeats itself.
        for data in iter(lambda: file.read(_ZSTD_SLICE), b""):
            while data:  # one frame after another, as `cat a.zst b.zst` makes them
                if frame.eof:
                    frame = unpacker.decompressobj()
                held.append(frame.decompress(data))
                data, is_whole = frame.unused_data, frame.eof
            if sum(map(len, held)) >= _CHUNK:
                yield b"".join(held)
                held = []
    except zstandard.ZstdError as error:
        raise _damaged(path, error) from error
    if not is_whole:
        raise _damaged(path, "it ends before its end was reached")
    yield b"".join(held)


def _damaged(path: str, why: object) -> SourceError:
    suffix = os.path.splitext(path)[1].lower()
    return SourceError(f"{path} is no {suffix} file, or a damaged one ({why}). Copy it again.")


_DECOMPRESS: dict[str, Callable[[IO[bytes], str], Iterator[bytes]]] = {".gz": _gunzip, ".xz": _unxz, ".zst": _unzstd}
