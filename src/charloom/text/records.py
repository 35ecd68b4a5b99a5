"""Records: short separate texts, such as lines, between delimiters."""

from collections.abc import Iterable

from charloom.errors import RecordError, SourceError
from charloom.printable import quoted
from charloom.settings import TextSettings
from charloom.text.decoding import normalize


def split_records(documents: Iterable[str | bytes], settings: TextSettings) -> list[str] | list[bytes]:
    """Returns the records of `documents` in order, without their delimiters and without empty records.

    Raises:
        SourceError: there is no record, or a record contains the character that marks its end.

    >>> split_records(["emma\\nolivia\\n", "ava"], TextSettings(delimiter="\\n"))
    ['emma', 'olivia', 'ava']
    """
    delimiter, end = settings.delimiter, settings.record_end
    assert delimiter is not None  # callers pass settings of records
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


def one_record(text: str | bytes, settings: TextSettings) -> str | bytes:
    """Returns the record in the normalized `text`, without a delimiter or record end after it.

    If the settings are not those of records, `text` is returned unchanged.

    Raises:
        RecordError: a record ends inside `text`, so that it has more than one record.

    >>> one_record("anna\\n", TextSettings(delimiter="\\n"))
    'anna'
    """
    if isinstance(text, bytes):  # treat each byte as the character with the same code
        ends = [end.encode().decode("latin-1") for end in _ends(settings)]
        return _one_record(text.decode("latin-1"), ends).encode("latin-1")
    return _one_record(text, _ends(settings))


def _one_record(text: str, ends: list[str]) -> str:
    record = text.removesuffix(next((end for end in ends if text.endswith(end)), ""))
    for end in ends:
        if end in record:
            raise RecordError(
                f"a record ends inside {quoted(text)}: {quoted(end)} at character {record.index(end)}. "
                "Give one record at a time, with at most one end after it."
            )
    return record


def record_end_in(text: str, settings: TextSettings) -> str | None:
    """Returns the delimiter or record end that occurs in the normalized `text`; None if neither does.

    >>> record_end_in("anna%%", TextSettings(delimiter="%%"))
    '%%'
    """
    return next((end for end in _ends(settings) if end in text), None)


def _ends(settings: TextSettings) -> list[str]:
    """Returns the delimiter and the character that replaces it in the vocabulary, the longer one first."""
    if settings.delimiter is None or settings.record_end is None:
        return []
    delimiter = normalize(settings.delimiter, settings) if settings.units == "chars" else settings.delimiter
    return sorted({delimiter, settings.record_end}, key=len, reverse=True)


def _require(records: list[str] | list[bytes], delimiter: str, has_end: bool) -> None:
    if not records:
        raise SourceError(f"the text has no records between delimiters {delimiter!r}. Give a text that has some.")
    if has_end:
        raise SourceError(
            "a record has the character U+001E, which marks the end of a record when --delimiter is given. "
            "Remove it from the text."
        )
