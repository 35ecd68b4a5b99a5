"""Lines as they arrive: bytes of a file or a pipe cut where lines end, each line decoded on its own."""

import codecs
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from charloom.settings import TextSettings
from charloom.text.decoding import decoded, is_utf8, normalize

_TOGETHER = 4096
LONGEST = 1 << 20
"""Bytes of a line that are held until it ends; a longer one is given out in parts."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line, or a part of a long one.

    Attributes:
        number: counted from 1.
        text: as a model with the settings sees it, without what ends it; nothing where there is a problem.
        is_first: whether the line begins here.
        is_last: whether it ends here.
        has_end: whether what ends a line stands behind it; the last line may lack it.
        problem: why it cannot be read.
    """

    number: int
    text: str | bytes
    is_first: bool = True
    is_last: bool = True
    has_end: bool = True
    problem: str | None = None


def arriving_lines(chunks: Iterable[bytes], name: str, settings: TextSettings) -> Iterator[list[Line]]:
    """Yields the lines that each chunk of `name` brings to their end, and the parts of one that does not end.

    A line ends with a newline (also \\r\\n or \\r), or with the delimiter of records. One that is not UTF-8 is a
    problem of its own, and the next starts again; in other encodings what is wrong cannot be told from the next line.

    Raises:
        SourceError: the chunks are in another encoding than they should be, which is not UTF-8.

    >>> [line.text for lines in arriving_lines([b"one\\ntw", b"o\\n"], "a pipe", TextSettings()) for line in lines]
    ['one', 'two']
    """
    delimiter = _delimiter(settings)
    number, offset, problem, held = 1, 0, None, b""  # offset: bytes of the line that were given out
    for chunk in _as_utf8(chunks, name, settings):
        held += chunk
        *whole, held = delimiter.split(held)
        lines = []
        for data in whole:
            lines.append(_line(number, data, settings, offset=offset, problem=problem))
            number, offset, problem = number + 1, 0, None
            if len(lines) == _TOGETHER:
                yield lines
                lines = []
        while len(held) > LONGEST:
            cut = _cut(held, settings)
            lines.append(_line(number, held[:cut], settings, offset=offset, is_last=False, problem=problem))
            held, offset, problem = held[cut:], offset + cut, lines[-1].problem
        if lines:
            yield lines
    if held or offset:
        yield [_line(number, held, settings, offset=offset, has_end=False, problem=problem)]


def count_lines(text: str, settings: TextSettings) -> int:
    """Returns how many lines `arriving_lines` makes of `text` in UTF-8, without making them.

    >>> count_lines("one\\r\\rtwo", TextSettings())
    3
    """
    data = b"".join(_as_utf8([text.encode("utf-8", "surrogatepass")], "", settings))
    delimiter = _ending(settings)
    if settings.lowercase:  # of bytes, ASCII alone has a case, here as in a pattern
        data, delimiter = data.lower(), delimiter.lower()
    parts = data.split(delimiter)
    return len(parts) - (not parts[-1])


def _delimiter(settings: TextSettings) -> re.Pattern[bytes]:
    """Returns what ends a line, in texts whose newlines are \\n, and whose case is still their own."""
    return re.compile(re.escape(_ending(settings)), re.IGNORECASE if settings.lowercase else re.NOFLAG)


def _ending(settings: TextSettings) -> bytes:
    delimiter = settings.delimiter or "\n"
    return (normalize(delimiter, settings) if settings.units == "chars" else delimiter).encode()


def _line(
    number: int,
    data: bytes,
    settings: TextSettings,
    *,
    offset: int,
    is_last: bool = True,
    has_end: bool = True,
    problem: str | None,
) -> Line:
    text: str | bytes = data
    if problem is not None:
        text = ""
    elif settings.units == "chars":
        try:
            text = normalize(data.decode(), settings)
        except UnicodeDecodeError as error:
            text, problem = "", f"byte 0x{data[error.start]:02x} at offset {offset + error.start} is no UTF-8"
    return Line(number, text, offset == 0, is_last, has_end and is_last, problem)


def _cut(held: bytes, settings: TextSettings) -> int:
    """Returns where a line that goes on can be cut: not within a character, nor within what may be its end."""
    cut = min(LONGEST, len(held) - len((settings.delimiter or "\n").encode()) + 1)
    if settings.units == "chars":
        for back in range(4):  # a character has four bytes at most
            if held[cut - back] & 0xC0 != 0x80:
                return cut - back
    return cut


def _as_utf8(chunks: Iterable[bytes], name: str, settings: TextSettings) -> Iterator[bytes]:
    if settings.units == "bytes":
        return iter(chunks)
    if is_utf8(settings.encoding):
        return _with_newlines(_without_mark(iter(chunks)))
    return _with_newlines(text.encode() for text in decoded(chunks, name, settings.encoding))


def _without_mark(chunks: Iterator[bytes]) -> Iterator[bytes]:
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= len(codecs.BOM_UTF8) or not codecs.BOM_UTF8.startswith(head):
            break
    yield head.removeprefix(codecs.BOM_UTF8)
    yield from chunks


def _with_newlines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yields the chunks with \\n where they have \\r\\n or \\r."""
    held = b""
    for chunk in chunks:
        if held or b"\r" in chunk:
            chunk = held + chunk
            held = b"\r" if chunk.endswith(b"\r") else b""  # its \n may still come
            chunk = chunk.removesuffix(b"\r").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        yield chunk
    if held:
        yield b"\n"
