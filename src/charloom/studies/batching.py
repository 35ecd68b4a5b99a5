"""Batchings: how a study cuts its text into the batches that a step reads, declared as data."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Integer

from charloom.data import (
    Block,
    BlockProducer,
    ContiguousBatches,
    TokenStream,
    Windows,
    contiguous_windows,
    evaluation_pass,
    left_padded,
    sliding_windows,
)

_SCORING_CAPACITY = 64
_SCORING_LENGTH = 64


@runtime_checkable
class Batching(Protocol):
    """The interface that every batching has.

    Attributes:
        batch_size: windows or rows per step.
        length: characters per window or row in one step.
        last_only: whether only the last of these characters makes a prediction.
    """

    @property
    def batch_size(self) -> int: ...

    @property
    def length(self) -> int: ...

    @property
    def last_only(self) -> bool: ...

    def producer(self, stream: TokenStream, seed: int) -> BlockProducer:
        """Returns the producer of the blocks to train on."""
        ...

    def unshuffled(self, stream: TokenStream, seed: int) -> BlockProducer:
        """Returns a producer of the same rows in their original order, for display."""
        ...

    def steps_per_epoch(self, stream: TokenStream) -> int:
        """Returns the number of steps in an epoch."""
        ...

    def scoring(self, stream: TokenStream, seed: int) -> Iterator[Block]:
        """Yields blocks, in order, that score `stream` the way the model was trained; `seed` as for the producer."""
        ...


@dataclass(frozen=True, kw_only=True)
class ShuffledWindows:
    """Windows of `length` characters, `stride` apart. Each is a separate text; every epoch has a new order."""

    length: int
    stride: int
    batch_size: int
    drop_last: bool = False

    last_only = True

    def windows(self, stream: TokenStream, seed: int | None) -> Windows:
        """Returns the windows of `stream`, shuffled by `seed`, or in order if `seed` is None."""
        return Windows(
            stream,
            sliding_windows(stream, self.length, self.stride),
            self.length,
            self.batch_size,
            shuffle_seed=seed,
            drop_last=self.drop_last,
        )

    def producer(self, stream: TokenStream, seed: int) -> Windows:
        return self.windows(stream, seed)

    def unshuffled(self, stream: TokenStream, seed: int) -> Windows:
        del seed
        return self.windows(stream, None)

    def steps_per_epoch(self, stream: TokenStream) -> int:
        return self.windows(stream, None).steps_per_epoch

    def scoring(self, stream: TokenStream, seed: int) -> Iterator[Block]:
        del seed
        return self.windows(stream, None).epoch(_SCORING_CAPACITY)


@dataclass(frozen=True, kw_only=True)
class StatefulRows:
    """Equal parts of the text, read in parallel, `length` characters per step; each row carries its state.

    The state is reset at the end of each epoch. If `length` and `batch_size` are 1, an epoch reads the text once, one
    character at a time.
    """

    length: int
    batch_size: int

    last_only = False

    def producer(self, stream: TokenStream, seed: int) -> Windows:
        del seed  # rows follow the order of the text
        starts = contiguous_windows(stream, self.length, self.batch_size)
        return Windows(stream, starts, self.length, self.batch_size, last_only=False, stateful=True)

    def unshuffled(self, stream: TokenStream, seed: int) -> Windows:
        return self.producer(stream, seed)

    def steps_per_epoch(self, stream: TokenStream) -> int:
        return self.producer(stream, 0).steps_per_epoch

    def scoring(self, stream: TokenStream, seed: int) -> Iterator[Block]:
        return self.producer(stream, seed).epoch(_SCORING_CAPACITY)


@dataclass(frozen=True, kw_only=True)
class PaddedPieces:
    """Random pieces of 1 to `length` letters, padded on the left with zeros; the target is the next letter.

    A piece starts anywhere in the text and ends before the last letter, so that a next letter exists.
    """

    length: int
    pieces: int
    batch_size: int = 1

    last_only = True

    def draw(self, letters: Integer[np.ndarray, " letters"], draws: np.random.Generator) -> np.ndarray:
        """Returns a random piece: its inputs, followed by the target letter."""
        start = int(draws.integers(0, len(letters) - 2))
        end = int(draws.integers(start, min(start + self.length, len(letters) - 1)))
        return letters[start : end + 2]

    def windows(self, stream: TokenStream, seed: int, shuffled: bool) -> Windows:
        """Returns the pieces drawn with `seed`."""
        draws = np.random.default_rng(seed)
        pieces = [self.draw(stream.token_ids, draws) for _ in range(self.pieces)]
        padded, starts = left_padded(pieces, self.length, pad_id=0)
        return Windows(padded, starts, self.length, self.batch_size, shuffle_seed=seed if shuffled else None)

    def producer(self, stream: TokenStream, seed: int) -> Windows:
        return self.windows(stream, seed, shuffled=True)

    def unshuffled(self, stream: TokenStream, seed: int) -> Windows:
        return self.windows(stream, seed, shuffled=False)

    def steps_per_epoch(self, stream: TokenStream) -> int:
        del stream
        return -(-self.pieces // self.batch_size)

    def scoring(self, stream: TokenStream, seed: int) -> Iterator[Block]:
        return self.windows(stream, seed, shuffled=False).epoch(_SCORING_CAPACITY)


@dataclass(frozen=True, kw_only=True)
class ContiguousStreams:
    """Rows that read the text without end and carry their state; after the end of the text they start over.

    Attributes:
        epoch: number of steps that count as one epoch.
        random_offsets: whether each row starts at a random position; otherwise starts are evenly spaced.
    """

    length: int
    batch_size: int
    epoch: int
    random_offsets: bool = False

    last_only = False

    def producer(self, stream: TokenStream, seed: int) -> ContiguousBatches:
        offsets = None
        if self.random_offsets:
            # The published code could also draw the length of the text itself, and then read past the end.
            offsets = np.random.default_rng(seed).integers(0, len(stream), self.batch_size)
        return ContiguousBatches(stream, self.batch_size, self.length, offsets)

    def unshuffled(self, stream: TokenStream, seed: int) -> ContiguousBatches:
        return self.producer(stream, seed)

    def steps_per_epoch(self, stream: TokenStream) -> int:
        del stream
        return self.epoch

    def scoring(self, stream: TokenStream, seed: int) -> Iterator[Block]:
        del seed
        return evaluation_pass(stream)

    def warm_scoring(self, stream: TokenStream) -> Iterator[Block]:
        """Yields blocks with as many rows as in training, so that scoring can start from the carry after training.

        A state that was never reset can hold information that the network relies on and cannot rebuild.
        """
        length = min(_SCORING_LENGTH, (len(stream) - 1) // self.batch_size)
        for block in StatefulRows(length=length, batch_size=self.batch_size).scoring(stream, 0):
            yield replace(block, state_resets=np.zeros_like(block.state_resets))
