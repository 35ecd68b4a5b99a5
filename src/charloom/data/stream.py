"""A token stream: the concatenated token ids of documents, and where each document begins."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, Integer

from charloom.errors import SourceError
from charloom.settings import UnknownPolicy
from charloom.text import Vocabulary


@dataclass(frozen=True)
class TokenStream:
    """Concatenated documents, in memory or memory-mapped. Positions are Python ints.

    Attributes:
        token_ids: ids of any integer type.
        starts: the positions where documents begin, ascending from 0.
        vocab_size: all ids must be smaller, which is checked when they are read from disk. None if the ids come from a
            vocabulary of this process.
    """

    token_ids: Integer[np.ndarray, " tokens"]
    starts: Int64[np.ndarray, " documents"]
    vocab_size: int | None = None

    @classmethod
    def from_documents(cls, documents: Iterable[Integer[np.ndarray, " _"]]) -> "TokenStream":
        """Returns the stream of `documents`, without empty ones."""
        nonempty = [document for document in documents if len(document)]
        lengths = np.array([len(document) for document in nonempty], dtype=np.int64)
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)[:-1]])
        return cls(np.concatenate(nonempty), starts)

    @classmethod
    def from_records(
        cls, records: Sequence[str] | Sequence[bytes], vocabulary: Vocabulary, unknown: UnknownPolicy = "replace"
    ) -> "TokenStream":
        """Returns the records as documents, each with its end token.

        All records are encoded in one call, because there may be millions.

        Raises:
            UnknownCharacterError: a character is unknown and `unknown` is "error".
        """
        end = vocabulary.record_end
        assert end is not None  # every vocabulary of records has an end token
        joined: str | bytes
        if vocabulary.units == "bytes":
            joined = b"".join(record + end.encode() for record in records if isinstance(record, bytes))
        else:
            joined = "".join(record + end for record in records if isinstance(record, str))
        token_ids = vocabulary.encode(joined, unknown)
        # No record has the character of its end.
        ends = np.flatnonzero(token_ids == vocabulary.end_id)
        return cls(token_ids, np.concatenate([np.zeros(1, np.int64), ends[:-1] + 1]))

    def __len__(self) -> int:
        return len(self.token_ids)

    def split(self, position: int) -> tuple["TokenStream", "TokenStream"]:
        """Returns the stream before `position` and the stream from `position` on, which begins a new document."""
        after = self.starts[self.starts > position] - position
        return (
            TokenStream(self.token_ids[:position], self.starts[self.starts < position], self.vocab_size),
            TokenStream(self.token_ids[position:], np.concatenate([np.zeros(1, np.int64), after]), self.vocab_size),
        )

    @property
    def documents(self) -> list[Integer[np.ndarray, " _"]]:
        """The ids of each document."""
        return np.split(self.token_ids, self.starts[1:])

    def circular(self, position: int, count: int) -> Integer[np.ndarray, " count"]:
        """Returns `count` ids from `position` on, which may be -1. After the last id comes the first.

        Raises:
            SourceError: an id is outside the vocabulary: the file was changed after it was written.
        """
        position %= len(self)
        if position + count <= len(self):
            token_ids = self.token_ids[position : position + count]
        else:
            token_ids = np.take(self.token_ids, np.arange(position, position + count), mode="wrap")
        if self.vocab_size is not None and count and (highest := int(token_ids.max())) >= self.vocab_size:
            raise SourceError(
                f"the encoded text has id {highest}, but only {self.vocab_size} characters: it was changed after it "
                "was written. Remove the folder that --cache names, and train again."
            )
        return token_ids

    def circular_starts(self, position: int, count: int) -> Bool[np.ndarray, " count"]:
        """Returns which of the `count` positions from `position` on begin a document."""
        positions = np.arange(position, position + count) % len(self)
        found = np.searchsorted(self.starts, positions)
        return self.starts[np.minimum(found, len(self.starts) - 1)] == positions
