"""Bytes into the text that a model sees: decoded and normalized, a piece at a time.

However the bytes are cut into chunks, the pieces joined are the same text.
"""

import codecs
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TypeVar

from charloom.errors import EncodingError
from charloom.settings import TextSettings

Text = TypeVar("Text", str, bytes, str | bytes)

_UTF8 = ("utf-8", "utf-8-sig")
_MARKS = {
    "utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
    "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
}
_LONGEST_WORD = 1 << 20
"""Characters without any space that are held until one comes, at most."""


def text_pieces(chunks: Iterable[bytes], name: str, settings: TextSettings) -> Iterator[str]:
    """Yields the text that the chunks of the file `name` are to a model of characters with these settings.

    Raises:
        SourceError: the file is binary, or in another encoding.
    """
    held = ""
    for text in decoded(chunks, name, settings.encoding):
        text = held + text
        cut = _cut(text)
        held = text[cut:]
        yield normalize(text[:cut], settings)
    yield normalize(held, settings)


def normalize(text: Text, settings: TextSettings) -> Text:
    """Returns `text` as a model with these settings sees it: newlines as \\n, lower-cased if so set.

    Bytes are left as they are.
    """
    if isinstance(text, bytes):
        return text
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.lower() if settings.lowercase else text


def has_no_zero_bytes(encoding: str) -> bool:
    """Returns whether a zero byte tells that something is no text in `encoding`."""
    return not codecs.lookup(encoding).name.startswith(("utf-16", "utf-32"))


def _cut(text: str) -> int:
    """Returns where `text` can be cut: behind a line's end or a word's; 0 where it should not be.

    A \\r may have its \\n still to come, and the lower case of a sigma depends on whether its word goes on.
    """
    line = max(text.rfind("\n"), text.rfind("\r", 0, max(0, len(text) - 1)))
    anywhere = len(text) - text.endswith("\r") if len(text) > _LONGEST_WORD else 0
    return (line + 1) or (text.rfind(" ") + 1) or anywhere


def is_utf8(encoding: str) -> bool:
    """Returns whether `encoding` is UTF-8 by one of its names."""
    return codecs.lookup(encoding).name in _UTF8


def decoded(chunks: Iterable[bytes], name: str, encoding: str) -> Iterator[str]:
    """Yields the text of the chunks of the file `name`, as it is.

    Raises:
        SourceError: the file is binary, or in another encoding.
    """
    chunks = iter(chunks)
    codec, utf8 = codecs.lookup(encoding).name, is_utf8(encoding)
    marks = (codecs.BOM_UTF8,) if utf8 else _MARKS.get(codec, ())
    head = b""
    for chunk in chunks:
        head += chunk
        if not any(len(head) < len(mark) and mark.startswith(head) for mark in marks):
            break  # what has come is given out at once, unless it may be the beginning of a mark
    read = 0
    if utf8:
        codec = "utf-8"
        if head.startswith(codecs.BOM_UTF8):
            read = len(codecs.BOM_UTF8)
            head = head[read:]
    elif codec in _MARKS and not head.startswith(_MARKS[codec]):  # else in the byte order that a mark tells
        codec += "-le" if sys.byteorder == "little" else "-be"
    decoder = codecs.getincrementaldecoder(codec)()
    zeros = not has_no_zero_bytes(encoding)
    try:
        for chunk in chain([head], chunks):
            if not zeros and b"\0" in chunk:
                raise EncodingError(
                    f"{name} is binary, not text: a zero byte at offset {read + chunk.index(0)}.",
                    "Pass --bytes to model raw bytes, or --encoding (utf-16, say) if it is text.",
                )
            read += len(chunk)
            yield _real_characters(decoder.decode(chunk), utf8)
        yield _real_characters(decoder.decode(b"", final=True), utf8)
    except UnicodeError as error:
        where = ""
        if isinstance(error, UnicodeDecodeError):
            # The decoder was at the last of the bytes that were read, whatever it had kept of those before.
            offset = read - len(error.object) + error.start
            where = f": byte 0x{error.object[error.start]:02x} at offset {offset}"
        raise EncodingError(
            f"cannot decode {name} as {encoding}{where}.",
            "Pass --encoding (cp1252 is common), or --bytes to model raw bytes.",
        ) from error


def _real_characters(text: str, utf8: bool) -> str:
    if not utf8:
        text.encode()  # some encodings let lone surrogates through, which are no characters
    return text
