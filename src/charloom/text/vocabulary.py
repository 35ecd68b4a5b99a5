"""The vocabulary: the characters or bytes that a model knows, and their token ids."""

import codecs
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, get_args, runtime_checkable

import numpy as np
from jaxtyping import Int32, Integer, UInt32

from charloom.errors import SettingError, UnknownCharacterError
from charloom.settings import Units, UnknownPolicy

_CODE_POINTS = 0x110000
_TOGETHER = 1 << 20
_PIECE = 1 << 13  # fits into a core's cache with its arrays; and shorter pieces are more often all ASCII
_NEWLINE = "\n"
_UNKNOWN = "\ufffd"


@runtime_checkable
class IncrementalDecoder(Protocol):
    """Decodes token ids into text, piece by piece."""

    def __call__(self, token_ids: Integer[np.ndarray, " time"], final: bool = False) -> str: ...


@dataclass(frozen=True)
class Vocabulary:
    """The tokens that a model knows, and their ids from 0 to `size` - 1.

    Attributes:
        units: "chars" for Unicode characters (code points), "bytes" for all 256 bytes.
        characters: The characters in the order of their ids. Empty for bytes.
        record_end: The character that ends a record and starts the next one. None for continuous text.

    >>> vocabulary = Vocabulary.of_texts(["hello"])
    >>> vocabulary.encode("hole").tolist()
    [1, 3, 2, 0]
    >>> vocabulary.decode([1, 3, 2, 0])
    'hole'
    """

    units: Units
    characters: str
    record_end: str | None = None

    @classmethod
    def of_texts(cls, texts: Iterable[str], min_count: int = 1, record_end: str | None = None) -> "Vocabulary":
        """Returns the vocabulary of all characters in `texts`, sorted by code point.

        Args:
            texts: The texts, of which there may be millions.
            min_count: As in `of_counts`.
            record_end: The character that ends a record, or None. It is always part of the vocabulary.
        """
        return cls.of_counts(CharacterCounts.of_texts(texts, exact=min_count > 1), min_count, record_end)

    @classmethod
    def of_counts(cls, counts: "CharacterCounts", min_count: int = 1, record_end: str | None = None) -> "Vocabulary":
        """Returns the vocabulary of all counted characters, sorted by code point.

        Characters that occur fewer than `min_count` times are left out. If there are any, U+FFFD replaces them.
        """
        rare = set(counts.characters(below=min_count))
        known = set(counts.characters()) - rare
        if rare:
            known.add(_UNKNOWN)
        if record_end is not None:
            known.add(record_end)
        return cls("chars", "".join(sorted(known)), record_end)

    @classmethod
    def of_bytes(cls, record_end: str | None = None) -> "Vocabulary":
        """Returns the vocabulary of all 256 bytes, which can encode every text."""
        return cls("bytes", "", record_end)

    @property
    def size(self) -> int:
        """The number of tokens."""
        return 256 if self.units == "bytes" else len(self.characters)

    @property
    def start_id(self) -> int | None:
        """The id that is read before a text: the end of a record, or the newline. None if there is neither."""
        return self._id_of(_NEWLINE if self.record_end is None else self.record_end)

    @property
    def end_id(self) -> int | None:
        """The id that ends a record. None for continuous text."""
        return None if self.record_end is None else self._id_of(self.record_end)

    @property
    def unknown_id(self) -> int | None:
        """The id of U+FFFD, which replaces rare characters. None if the vocabulary does not contain it."""
        return None if self.units == "bytes" else self._id_of(_UNKNOWN)

    def _id_of(self, character: str) -> int | None:
        position = ord(character) if self.units == "bytes" else self.characters.find(character)
        return None if position < 0 else position

    @property
    def token_dtype(self) -> np.dtype[np.unsignedinteger]:
        """The smallest unsigned NumPy integer type that can hold every id."""
        return np.min_scalar_type(self.size - 1)

    def encode(
        self, text: str | bytes, unknown: UnknownPolicy = "error", position: int = 0
    ) -> Integer[np.ndarray, " time"]:
        """Returns the token ids of `text`: an array of type `token_dtype`, of shape `(time,)`.

        A vocabulary of bytes encodes a str as UTF-8.

        Args:
            text: A str, or bytes for a vocabulary of bytes.
            unknown: What happens to characters that are not in the vocabulary: "error" raises an error, "skip" leaves
                them out, and "replace" uses the id of `replacement`.
            position: Position of `text` in a longer text, which the error message counts from.

        Raises:
            UnknownCharacterError: A character is unknown and `unknown` is "error".
            SettingError: `unknown` is not one of the three.
            TypeError: `text` is bytes and the vocabulary is one of characters.
        """
        if unknown not in get_args(UnknownPolicy):
            raise SettingError("unknown", f"must be {' or '.join(get_args(UnknownPolicy))}, got {unknown!r}")
        if self.units == "bytes":
            data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
            return np.frombuffer(data, dtype=np.uint8)
        if isinstance(text, bytes):
            raise TypeError("a vocabulary of characters encodes str, not bytes")
        pieces = []
        for start, piece in _pieces(text):
            if (ids := self._ascii_ids(piece)) is None:
                ids = self._ids(_code_points(piece), position + start, unknown).astype(self.token_dtype)
            pieces.append(ids)
        return np.concatenate(pieces) if pieces else np.zeros(0, self.token_dtype)

    def _ids(self, points: Integer[np.ndarray, " time"], offset: int, unknown: UnknownPolicy) -> np.ndarray:
        ids = self._id_of_code_point.take(points)
        missing = ids < 0
        if not missing.any():
            return ids
        if unknown == "error":
            index = int(missing.argmax())
            raise UnknownCharacterError(
                f"cannot encode {_name(chr(points[index]))} at character {offset + index}: "
                f"not among this model's {self.size} characters. "
                "Pass --unknown replace, or train on text that has it."
            )
        if unknown == "skip":
            return ids[~missing]
        return np.where(missing, self.characters.index(self.replacement), ids)

    def _ascii_ids(self, text: str) -> Integer[np.ndarray, " time"] | None:
        """Returns the ids of a text of known ASCII characters, several times as fast. None for other texts."""
        if not text.isascii() or self.size > 256:
            return None
        data, (known, ids) = text.encode("ascii"), self._ascii
        return None if data.translate(None, known) else np.frombuffer(data.translate(ids), dtype=np.uint8)

    def unknown_characters(self, text: str) -> list[str]:
        """Returns the characters of `text` that are not in the vocabulary, each occurrence, in order."""
        if self.units == "bytes":
            return []
        points = _code_points(text)
        return [chr(point) for point in points[self._id_of_code_point[points] < 0]]

    @property
    def replacement(self) -> str:
        """The character that replaces unknown ones: U+FFFD, or else a space, or else the vocabulary's first."""
        ordinary = [character for character in self.characters if character != self.record_end]
        return next((one for one in (_UNKNOWN, " ") if one in ordinary), (ordinary or self.characters)[0])

    def decode(self, token_ids: Iterable[int] | Integer[np.ndarray, " time"]) -> str:
        """Returns the text of `token_ids`. Bytes that are not valid UTF-8 become U+FFFD.

        Args:
            token_ids: Integers from 0 to `size` - 1.
        """
        return self.decoder()(np.asarray(token_ids, dtype=np.int64), final=True)

    def decoder(self) -> IncrementalDecoder:
        """Returns a function that decodes ids into text and keeps an unfinished UTF-8 sequence for its next call."""
        if self.units == "chars":
            points = self._points
            return lambda token_ids, final=False: points[token_ids].tobytes().decode("utf-32-le", "surrogatepass")
        utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        return lambda token_ids, final=False: utf8.decode(np.asarray(token_ids, dtype=np.uint8).tobytes(), final)

    @cached_property
    def _ascii(self) -> tuple[bytes, bytes]:
        """The known ASCII characters, and a table of ids by byte."""
        ids = bytearray(256)
        known = [(ord(character), at) for at, character in enumerate(self.characters) if character.isascii()]
        for byte, at in known:
            ids[byte] = at
        return bytes(byte for byte, _ in known), bytes(ids)

    @cached_property
    def _points(self) -> UInt32[np.ndarray, " size"]:
        return np.array([ord(character) for character in self.characters], dtype="<u4")

    @cached_property
    def _id_of_code_point(self) -> Int32[np.ndarray, " code_points"]:
        table = np.full(_CODE_POINTS, -1, dtype=np.int32)
        points = np.array([ord(character) for character in self.characters], dtype=np.int64)
        table[points] = np.arange(len(points), dtype=np.int32)
        return table


class CharacterCounts:
    """Counts characters in texts that are added one by one.

    Args:
        exact: Count occurrences. Otherwise only find out which characters occur, which is faster.
    """

    def __init__(self, *, exact: bool) -> None:
        self._exact = exact
        self._counts = np.zeros(_CODE_POINTS, dtype=np.int64)
        self._seen = b""  # ASCII characters

    @classmethod
    def of_texts(cls, texts: Iterable[str], *, exact: bool) -> "CharacterCounts":
        """Returns the counts of all `texts`, of which there may be millions."""
        counts = cls(exact=exact)
        for text in _together(texts):
            counts.add(text)
        return counts

    def add(self, text: str) -> None:
        """Counts the characters of `text`."""
        for _, piece in _pieces(text):
            self._add(piece)

    def _add(self, text: str) -> None:
        if self._exact:
            if text.isascii():
                self._counts[:256] += np.bincount(np.frombuffer(text.encode("ascii"), np.uint8), minlength=256)
            elif (points := _code_points(text)).itemsize == 2:
                self._counts[: 1 << 16] += np.bincount(points, minlength=1 << 16)
            else:
                found, times = np.unique(points, return_counts=True)
                self._counts[found] += times
        elif text.isascii():
            if unseen := text.encode("ascii").translate(None, self._seen):
                self._seen += bytes(set(unseen))
                self._counts[list(self._seen)] = 1
        elif not self._counts.take(points := _code_points(text)).all():
            self._counts[points] = 1

    def characters(self, below: int | None = None) -> str:
        """Returns the characters that occur, sorted. With `below`, only those that occur fewer times than that."""
        found = self._counts > 0
        if below is not None:
            found &= self._counts < below
        return "".join(map(chr, np.flatnonzero(found)))


def describe_characters(characters: Iterable[str]) -> str:
    """Returns the names of the distinct `characters`, at most five, for a message.

    >>> describe_characters("éaé")
    "'a' (U+0061), 'é' (U+00E9)"
    """
    distinct = sorted(set(characters))
    names = ", ".join(_name(character) for character in distinct[:5])
    return names if len(distinct) <= 5 else f"{names} and {len(distinct) - 5} more"


def _name(character: str) -> str:
    return f"{character!r} (U+{ord(character):04X})"


def _together(texts: Iterable[str]) -> Iterable[str]:
    """Yields short texts joined into long ones, because one call per record is slow for a million records."""
    held: list[str] = []
    length = 0
    for text in texts:
        held.append(text)
        length += len(text)
        if length >= _TOGETHER:
            yield "".join(held)
            held, length = [], 0
    yield "".join(held)


def _pieces(text: str) -> Iterable[tuple[int, str]]:
    return ((start, text[start : start + _PIECE]) for start in range(0, len(text), _PIECE))


def _code_points(text: str) -> Integer[np.ndarray, " time"]:
    # Two bytes are enough for most texts, and twice as fast.
    if len(two := text.encode("utf-16-le", "surrogatepass")) == 2 * len(text):
        return np.frombuffer(two, dtype="<u2")
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
