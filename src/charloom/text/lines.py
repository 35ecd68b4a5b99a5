"""Lines of a file or a pipe as they arrive. Each line is decoded separately."""

import codecs
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from charloom.settings import TextSettings
from charloom.text.decoding import decoded, is_utf8, normalize

_MAX_LINES = 4096
MAX_LINE_BYTES = 1 << 20
"""The maximum number of bytes of a line that are buffered. A longer line is yielded in parts."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line, or a part of a long line.

    Attributes:
        number: the line number, counted from 1.
        text: the normalized text without the line's end; empty if there is a problem.
        is_first: whether this is the first part of the line.
        is_last: whether this is the last part of the line.
        has_end: whether a newline or delimiter follows. The last line may not have one.
        problem: why the line cannot be decoded; None if it can.
    """

    number: int
    text: str | bytes
    is_first: bool = True
    is_last: bool = True
    has_end: bool = True
    problem: str | None = None


def iter_lines(chunks: Iterable[bytes], name: str, settings: TextSettings) -> Iterator[list[Line]]:
    """Yields the lines that end in each chunk of `name`, and parts of a line that is too long to buffer.

    A line ends with a newline (also \\r\\n or \\r), or with the delimiter of records. A line that is not valid UTF-8
    has a `problem`, and the next line is read as usual. In other encodings an error cannot be limited to one line.

    Raises:
        SourceError: the encoding is not UTF-8, and the chunks are not valid in it.

    >>> [line.text for lines in iter_lines([b"one\\ntw", b"o\\n"], "a pipe", TextSettings()) for line in lines]
    ['one', 'two']
    """
    delimiter = _delimiter(settings)
    number, offset, problem, buffered = 1, 0, None, b""  # offset: bytes of the line that were yielded already
    for chunk in _as_utf8(chunks, name, settings):
        buffered += chunk
        *whole, buffered = delimiter.split(buffered)
        lines = []
        for data in whole:
            lines.append(_line(number, data, settings, offset=offset, problem=problem))
            number, offset, problem = number + 1, 0, None
            if len(lines) == _MAX_LINES:
                yield lines
                lines = []
        while len(buffered) > MAX_LINE_BYTES:
            cut = _cut(buffered, settings)
            lines.append(_line(number, buffered[:cut], settings, offset=offset, is_last=False, problem=problem))
            buffered, offset, problem = buffered[cut:], offset + cut, lines[-1].problem
        if lines:
            yield lines
    if buffered or offset:
        yield [_line(number, buffered, settings, offset=offset, has_end=False, problem=problem)]


def count_lines(text: str, settings: TextSettings) -> int:
    """Returns how many lines `iter_lines` yields for `text`, without creating them.

    >>> count_lines("one\\r\\rtwo", TextSettings())
    3
    """
    data = b"".join(_as_utf8([text.encode("utf-8", "surrogatepass")], "", settings))
    delimiter = _ending(settings)
    if settings.lowercase:  # in bytes, only ASCII has upper and lower case, as in a pattern of bytes
        data, delimiter = data.lower(), delimiter.lower()
    parts = data.split(delimiter)
    return len(parts) - (not parts[-1])


def _delimiter(settings: TextSettings) -> re.Pattern[bytes]:
    """Returns a pattern for the end of a line, for text with \\n as newlines that is not yet in lower case."""
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
            text, problem = "", f"byte 0x{data[error.start]:02x} at offset {offset + error.start} is not UTF-8"
    return Line(number, text, offset == 0, is_last, has_end and is_last, problem)


def _cut(buffered: bytes, settings: TextSettings) -> int:
    """Returns where an unfinished line can be cut: not inside a character, nor inside a possible delimiter."""
    cut = min(MAX_LINE_BYTES, len(buffered) - len((settings.delimiter or "\n").encode()) + 1)
    if settings.units == "chars":
        for back in range(4):  # a character has at most four bytes
            if buffered[cut - back] & 0xC0 != 0x80:
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
    """Yields the chunks with \\n instead of \\r\\n or \\r."""
    buffered = b""
    for chunk in chunks:
        if buffered or b"\r" in chunk:
            chunk = buffered + chunk
            buffered = b"\r" if chunk.endswith(b"\r") else b""  # its \n may still come
            chunk = chunk.removesuffix(b"\r").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        yield chunk
    if buffered:
        yield b"\n"
