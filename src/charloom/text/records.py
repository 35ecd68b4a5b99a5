"""Records: short texts of their own, a line each or between delimiters."""

from collections.abc import Iterable

from charloom.errors import SourceError
from charloom.settings import TextSettings
from charloom.text.decoding import normalize


def split_records(documents: Iterable[str | bytes], settings: TextSettings) -> list[str] | list[bytes]:
    """Returns the records of `documents` in order, without their delimiters; empty ones are left out.

    Raises:
        SourceError: there is none, or one has the character that stands for a record's end.

    >>> split_records(["emma\\nolivia\\n", "ava"], TextSettings(delimiter="\\n"))
    ['emma', 'olivia', 'ava']
    """
    delimiter, end = settings.delimiter, settings.record_end
    assert delimiter is not None  # callers ask for records
    assert end is not None
    if settings.units == "bytes":
        as_bytes = [
            record
            for document in documents
            if isinstance(document, bytes)
            for record in document.split(delimiter.encode())
            if record
        ]
        _require(as_bytes, delimiter, any(end.encode() in record for record in as_bytes))
        return as_bytes
    delimiter = normalize(delimiter, settings)
    records = [
        record for document in documents if isinstance(document, str) for record in document.split(delimiter) if record
    ]
    _require(records, delimiter, any(end in record for record in records))
    return records


def _require(records: list[str] | list[bytes], delimiter: str, has_end: bool) -> None:
    if not records:
        raise SourceError(f"no record between delimiters {delimiter!r}. Give a text that has some.")
    if has_end:
        raise SourceError(
            "a record has the character U+001E, which stands for a record's end where --delimiter is given. "
            "Take it out of the text."
        )
