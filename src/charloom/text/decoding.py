"""Decoding and normalizing bytes into the text that a model reads, piece by piece.

The joined pieces do not depend on how the bytes are divided into chunks.
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
_ZIP = b"PK\x03\x04"
"""The first bytes of a zip file, and so of a document of Word or LibreOffice."""
_MARKS = {
    "utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
    "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
}
_MAX_WORD_LENGTH = 1 << 20
"""The maximum number of characters without a space that are buffered until a space comes."""


def text_pieces(chunks: Iterable[bytes], name: str, settings: TextSettings) -> Iterator[str]:
    """Yields the decoded and normalized text of the file `name`, for a model of characters with these settings.

    Raises:
        SourceError: the file is binary, or in another encoding.
    """
    buffered = ""
    for text in decoded(chunks, name, settings.encoding):
        text = buffered + text
        cut = _cut(text)
        buffered = text[cut:]
        yield normalize(text[:cut], settings)
    yield normalize(buffered, settings)


def normalize(text: Text, settings: TextSettings) -> Text:
    """Returns `text` as a model with these settings reads it: with newlines as \\n, and in lower case if so set.

    Bytes are returned unchanged.
    """
    if isinstance(text, bytes):
        return text
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.lower() if settings.lowercase else text


def has_no_zero_bytes(encoding: str) -> bool:
    """Returns whether text in `encoding` never has a zero byte."""
    return not codecs.lookup(encoding).name.startswith(("utf-16", "utf-32"))


def _cut(text: str) -> int:
    """Returns where `text` can be cut: after the last line or word; 0 if it should not be cut.

    The \\n of a final \\r may still be missing, and the lower case of a sigma depends on whether its word continues.
    """
    line = max(text.rfind("\n"), text.rfind("\r", 0, max(0, len(text) - 1)))
    anywhere = len(text) - text.endswith("\r") if len(text) > _MAX_WORD_LENGTH else 0
    return (line + 1) or (text.rfind(" ") + 1) or anywhere


def is_utf8(encoding: str) -> bool:
    """Returns whether `encoding` is one of the names of UTF-8."""
    return codecs.lookup(encoding).name in _UTF8


def decoded(chunks: Iterable[bytes], name: str, encoding: str) -> Iterator[str]:
    """Yields the decoded text of the file `name`, without normalizing it.

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
            break  # yield input at once, unless it may be the beginning of a byte order mark
    read = 0
    if utf8:
        codec = "utf-8"
        if head.startswith(codecs.BOM_UTF8):
            read = len(codecs.BOM_UTF8)
            head = head[read:]
    elif codec in _MARKS and not head.startswith(_MARKS[codec]):  # otherwise the mark gives the byte order
        codec += "-le" if sys.byteorder == "little" else "-be"
    decoder = codecs.getincrementaldecoder(codec)()
    zeros = not has_no_zero_bytes(encoding)
    try:
        for chunk in chain([head], chunks):
            if not zeros and b"\0" in chunk:
                if head.startswith(_ZIP):
                    raise EncodingError(
                        f"{name} is a zip file, as Word and other programs write, not plain text.",
                        "Save the document as plain text in UTF-8.",
                    )
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
            # The decoder may have buffered earlier bytes, but its input ends with the last byte that was read.
            offset = read - len(error.object) + error.start
            where = f": byte 0x{error.object[error.start]:02x} at offset {offset}"
        raise EncodingError(
            f"cannot decode {name} as {encoding}{where}.",
            "Pass --encoding (cp1252 is common), or --bytes to model raw bytes.",
        ) from error


def _real_characters(text: str, utf8: bool) -> str:
    if not utf8:
        text.encode()  # some encodings allow lone surrogates, which are not characters
    return text
