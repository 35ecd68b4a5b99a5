"""Batchings: how a study cuts its text into what a step reads, declared as data."""

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
    """What every batching can say of itself.

    Attributes:
        batch_size: windows, or places of the text, that a step reads (the batch).
        length: characters that each of them reads in one step.
        last_only: whether only the last of these predicts.
    """

    @property
    def batch_size(self) -> int: ...

    @property
    def length(self) -> int: ...

    @property
    def last_only(self) -> bool: ...

    def producer(self, stream: TokenStream, seed: int) -> BlockProducer:
        """Returns the producer of the training part's blocks."""
        ...

    def unshuffled(self, stream: TokenStream, seed: int) -> BlockProducer:
        """Returns a producer of the same rows, not shuffled, to look at."""
        ...

    def steps_per_epoch(self, stream: TokenStream) -> int:
        """Returns how many steps an epoch has."""
        ...

    def scoring(self, stream: TokenStream, seed: int) -> Iterator[Block]:
        """Yields blocks that score `stream` as the model reads it; `seed` as for the producer, but in order."""
        ...


@dataclass(frozen=True, kw_only=True)
class ShuffledWindows:
    """Windows of `length`, `stride` apart, each a separate text, in a new order every epoch."""

    length: int
    stride: int
    batch_size: int
    drop_last: bool = False

    last_only = True

    def windows(self, stream: TokenStream, seed: int | None) -> Windows:
        """Returns the windows of `stream`; in order where there is no seed."""
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
    """Rows of `length` side by side from equal parts of the text; the state is carried from row to row.

    It is reset at each epoch's end. With both 1 it reads the text once per epoch, a character at a time.
    """

    length: int
    batch_size: int

    last_only = False

    def producer(self, stream: TokenStream, seed: int) -> Windows:
        del seed  # the order is that of the text
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
    """Random pieces of 1 to `length` letters, filled up from the left with zeros, and the letter after them.

    A piece starts anywhere in the text, and ends before the letter that leaves no letter after it.
    """

    length: int
    pieces: int
    batch_size: int = 1

    last_only = True

    def draw(self, letters: Integer[np.ndarray, " letters"], draws: np.random.Generator) -> np.ndarray:
        """Returns a random piece: its inputs, and the letter after them."""
        start = int(draws.integers(0, len(letters) - 2))
        end = int(draws.integers(start, min(start + self.length, len(letters) - 1)))
        return letters[start : end + 2]

    def windows(self, stream: TokenStream, seed: int, shuffled: bool) -> Windows:
        """Returns the pieces that `seed` draws."""
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
    """Places of the text that read on and on, the state carried; past the text's end comes its beginning.

    Attributes:
        epoch: steps that are called an epoch.
        random_offsets: whether a row begins anywhere; else the rows share the text evenly.
    """

    length: int
    batch_size: int
    epoch: int
    random_offsets: bool = False

    last_only = False

    def producer(self, stream: TokenStream, seed: int) -> ContiguousBatches:
        offsets = None
        if self.random_offsets:
            # Below the text's length: the published code could draw the length itself, and read past the end.
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
        """Yields blocks of as many rows as training has, to be read on from training's own carry.

        A state that was never reset can hold what the network has come to rely on, and cannot build again.
        """
        length = min(_SCORING_LENGTH, (len(stream) - 1) // self.batch_size)
        for block in StatefulRows(length=length, batch_size=self.batch_size).scoring(stream, 0):
            yield replace(block, state_resets=np.zeros_like(block.state_resets))
