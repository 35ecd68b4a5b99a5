"""A token stream: the ids of documents laid end to end, and where each begins."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, Integer

from charloom.errors import SourceError
from charloom.settings import UnknownPolicy
from charloom.text import Vocabulary


@dataclass(frozen=True)
class TokenStream:
    """Documents end to end, in memory or memory-mapped; positions are Python ints.

    Attributes:
        token_ids: in any integer type.
        starts: the positions where documents begin, ascending, the first of them 0.
        vocab_size: which all ids are below, as is checked when they are read; None where they come from a vocabulary
            of this process, and not from a disk.
    """

    token_ids: Integer[np.ndarray, " tokens"]
    starts: Int64[np.ndarray, " documents"]
    vocab_size: int | None = None

    @classmethod
    def of_documents(cls, documents: Iterable[Integer[np.ndarray, " _"]]) -> "TokenStream":
        """Returns the stream of `documents`, of which empty ones leave no trace."""
        parts = [document for document in documents if len(document)]
        lengths = np.array([len(part) for part in parts], dtype=np.int64)
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)[:-1]])
        return cls(np.concatenate(parts), starts)

    @classmethod
    def of_records(
        cls, records: Sequence[str] | Sequence[bytes], vocabulary: Vocabulary, unknown: UnknownPolicy = "replace"
    ) -> "TokenStream":
        """Returns the records as documents, each with its end token; encoded in one go, for there may be millions.

        Raises:
            UnknownCharacterError: a character is unknown and `unknown` is "error".
        """
        end = vocabulary.record_end
        assert end is not None  # a vocabulary of records has one
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
        """Returns the streams before and from `position`; the second begins as a document there."""
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
        """Returns `count` ids from `position` on, which may be -1; after the last comes the first.

        Raises:
            SourceError: an id is none of the vocabulary's: the file was changed after it was written.
        """
        position %= len(self)
        if position + count <= len(self):
            token_ids = self.token_ids[position : position + count]
        else:
            token_ids = np.take(self.token_ids, np.arange(position, position + count), mode="wrap")
        if self.vocab_size is not None and count and (highest := int(token_ids.max())) >= self.vocab_size:
            raise SourceError(
                f"the encoded text has id {highest}, and only {self.vocab_size} characters: it was changed after it "
                "was written. Remove the folder that --cache names, and train again."
            )
        return token_ids

    def circular_starts(self, position: int, count: int) -> Bool[np.ndarray, " count"]:
        """Returns where documents begin among `count` positions from `position` on."""
        positions = np.arange(position, position + count) % len(self)
        found = np.searchsorted(self.starts, positions)
        return self.starts[np.minimum(found, len(self.starts) - 1)] == positions
