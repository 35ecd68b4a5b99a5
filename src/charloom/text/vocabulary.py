"""The vocabulary: which characters or bytes a model knows, and the integer that stands for each."""

import codecs
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, get_args, runtime_checkable

import numpy as np
from jaxtyping import Int32, Integer

from charloom.errors import SettingError, UnknownCharacterError
from charloom.settings import Units, UnknownPolicy

_CODE_POINTS = 0x110000
_ENCODE_CHUNK = 1 << 20
_NEWLINE = "\n"
_UNKNOWN = "\ufffd"


@runtime_checkable
class IncrementalDecoder(Protocol):
    """Turns token ids into text piece by piece."""

    def __call__(self, token_ids: Integer[np.ndarray, " time"], final: bool = False) -> str: ...


@dataclass(frozen=True)
class Vocabulary:
    """A bijection between tokens and the integers from 0 to `size` - 1.

    Attributes:
        units: "chars" for Unicode characters (code points), "bytes" for all 256 bytes.
        characters: the characters in the order of their ids; empty for bytes.
        record_end: the one that ends a record, and that a record begins after; None for a text that goes on.

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
        """Returns the vocabulary of the characters that occur in `texts`, sorted by code point.

        Those that occur fewer than `min_count` times are left out; U+FFFD stands for them, if there are any.
        """
        counts = np.zeros(_CODE_POINTS, dtype=np.int64)
        for points in _code_points_of_all(texts):
            if min_count == 1:
                counts[points] = 1
            else:
                found, times = np.unique(points, return_counts=True)
                counts[found] += times
        known = counts >= min_count
        known[ord(_UNKNOWN)] |= bool(counts[~known].any())
        if record_end is not None:
            known[ord(record_end)] = True
        return cls("chars", "".join(map(chr, np.flatnonzero(known))), record_end)

    @classmethod
    def of_bytes(cls, record_end: str | None = None) -> "Vocabulary":
        """Returns the vocabulary of all 256 bytes, which never meets an unknown."""
        return cls("bytes", "", record_end)

    @property
    def size(self) -> int:
        return 256 if self.units == "bytes" else len(self.characters)

    @property
    def start_id(self) -> int | None:
        """The id that a text begins after: a record's end, or the newline's; None where there is neither."""
        return self._id_of(_NEWLINE if self.record_end is None else self.record_end)

    @property
    def end_id(self) -> int | None:
        """The id that ends a record; None for a text that goes on."""
        return None if self.record_end is None else self._id_of(self.record_end)

    @property
    def unknown_id(self) -> int | None:
        """The id of U+FFFD, which rare characters are folded into; None where the vocabulary has it not."""
        return None if self.units == "bytes" else self._id_of(_UNKNOWN)

    def _id_of(self, character: str) -> int | None:
        position = ord(character) if self.units == "bytes" else self.characters.find(character)
        return None if position < 0 else position

    @property
    def token_dtype(self) -> np.dtype[np.unsignedinteger]:
        """The smallest unsigned integer type that holds every id."""
        return np.min_scalar_type(self.size - 1)

    def encode(self, text: str | bytes, unknown: UnknownPolicy = "error") -> Integer[np.ndarray, " time"]:
        """Returns the ids of `text`, in the smallest unsigned integer type that holds them.

        Characters that the vocabulary has not are refused, left out, or (`replace`) become
        `replacement`, by the policy `unknown`. Bytes encode text as UTF-8.

        Raises:
            UnknownCharacterError: a character is unknown and `unknown` is "error".
        """
        if unknown not in get_args(UnknownPolicy):
            raise SettingError("unknown", f"must be {' or '.join(get_args(UnknownPolicy))}, got {unknown!r}")
        if self.units == "bytes":
            data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
            return np.frombuffer(data, dtype=np.uint8)
        if isinstance(text, bytes):
            raise TypeError("a vocabulary of characters encodes str, not bytes")
        pieces = []
        offset = 0
        for points in _code_points(text):
            ids = self._id_of_code_point[points]
            missing = ids < 0
            if missing.any():
                if unknown == "error":
                    index = int(missing.argmax())
                    raise UnknownCharacterError(
                        f"cannot encode {_name(chr(points[index]))} at character {offset + index}: "
                        f"not among this model's {self.size} characters. "
                        "Pass --unknown replace, or train on text that has it."
                    )
                if unknown == "skip":
                    ids = ids[~missing]
                else:
                    ids = np.where(missing, self.characters.index(self.replacement), ids)
            pieces.append(ids.astype(self.token_dtype))
            offset += len(points)
        return np.concatenate(pieces) if pieces else np.zeros(0, self.token_dtype)

    def unknown_characters(self, text: str) -> list[str]:
        """Returns the characters of `text` that the vocabulary has not, each occurrence, in order."""
        if self.units == "bytes":
            return []
        return [chr(point) for points in _code_points(text) for point in points[self._id_of_code_point[points] < 0]]

    @property
    def replacement(self) -> str:
        """The character that stands in for an unknown one: U+FFFD, else a space, else the vocabulary's first."""
        ordinary = [character for character in self.characters if character != self.record_end]
        return next((one for one in (_UNKNOWN, " ") if one in ordinary), (ordinary or self.characters)[0])

    def decode(self, token_ids: Iterable[int] | Integer[np.ndarray, " time"]) -> str:
        """Returns the text of `token_ids`; bytes that are no UTF-8 become U+FFFD."""
        return self.decoder()(np.asarray(token_ids, dtype=np.int64), final=True)

    def decoder(self) -> IncrementalDecoder:
        """Returns a function from ids to text that keeps an unfinished UTF-8 sequence for its next call."""
        if self.units == "chars":
            return lambda token_ids, final=False: "".join(self.characters[i] for i in token_ids)
        utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        return lambda token_ids, final=False: utf8.decode(np.asarray(token_ids, dtype=np.uint8).tobytes(), final)

    @cached_property
    def _id_of_code_point(self) -> Int32[np.ndarray, " code_points"]:
        table = np.full(_CODE_POINTS, -1, dtype=np.int32)
        points = np.array([ord(character) for character in self.characters], dtype=np.int64)
        table[points] = np.arange(len(points), dtype=np.int32)
        return table


def describe_characters(characters: Iterable[str]) -> str:
    """Returns the distinct `characters` as one would name them in a message, at most five.

    >>> describe_characters("éaé")
    "'a' (U+0061), 'é' (U+00E9)"
    """
    distinct = sorted(set(characters))
    names = ", ".join(_name(character) for character in distinct[:5])
    return names if len(distinct) <= 5 else f"{names} and {len(distinct) - 5} more"


def _name(character: str) -> str:
    return f"{character!r} (U+{ord(character):04X})"


def _code_points_of_all(texts: Iterable[str]) -> Iterable[np.ndarray]:
    # Short texts in one go: a call for each of a million records would take long.
    held: list[str] = []
    length = 0
    for text in texts:
        held.append(text)
        length += len(text)
        if length >= _ENCODE_CHUNK:
            yield from _code_points("".join(held))
            held, length = [], 0
    yield from _code_points("".join(held))


def _code_points(text: str) -> Iterable[np.ndarray]:
    # In pieces, so that a long text needs four bytes a character for a piece only.
    for start in range(0, len(text), _ENCODE_CHUNK):
        piece = text[start : start + _ENCODE_CHUNK]
        yield np.frombuffer(piece.encode("utf-32-le", "surrogatepass"), dtype="<u4")
