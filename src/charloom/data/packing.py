"""Packing: texts of different lengths are distributed over rows, one after another within a row."""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer

from charloom.data.block import Block


@dataclass(frozen=True)
class Packing:
    """An assignment of texts to rows.

    Attributes:
        rows: for each row, the indices of its texts, first to last.
        time_steps: the length of the longest row.
    """

    rows: tuple[tuple[int, ...], ...]
    time_steps: int

    @classmethod
    def from_lengths(cls, lengths: Sequence[int], batch_size: int) -> "Packing":
        """Returns a packing into rows of similar length: each text, longest first, goes to the shortest row.

        >>> Packing.from_lengths([3, 8, 4], 2)
        Packing(rows=((1,), (2, 0)), time_steps=8)
        """
        loads = [(0, row) for row in range(batch_size)]
        places: list[list[int]] = [[] for _ in range(batch_size)]
        for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
            load, row = loads[0]
            places[row].append(place)
            heapq.heapreplace(loads, (load + lengths[place], row))
        return cls(tuple(map(tuple, places)), max(load for load, _ in loads))

    def blocks(
        self, texts: Sequence[Integer[np.ndarray, " _"]], capacity: int, sequence_length: int
    ) -> Iterator[Block]:
        """Yields the blocks in which the rows read `texts`. Each text is read from the start input."""
        readers = [_Row([texts[place] for place in places]) for places in self.rows]
        block_steps = capacity * sequence_length
        for first in range(0, self.time_steps, block_steps):
            steps = min(capacity, -(-(self.time_steps - first) // sequence_length))
            block = Block.empty(capacity, len(readers), sequence_length, steps)
            for row, reader in enumerate(readers):
                reader.fill(block, row, first)
            yield block


class _Row:
    """The concatenated texts of one row."""

    def __init__(self, texts: Sequence[Integer[np.ndarray, " _"]]) -> None:
        # The entry before a text's first token is not read: the start input replaces it.
        self._entries = np.concatenate([np.zeros(1, np.int32), *texts])
        lengths = np.array([len(text) for text in texts if len(text)], np.int64)
        self._begins = np.zeros(lengths.sum(), bool)
        self._begins[np.cumsum(lengths) - lengths] = True

    def fill(self, block: Block, row: int, first: int) -> None:
        time_steps = block.steps * block.sequence_length
        begins = self._begins[first : first + time_steps]
        missing = time_steps - len(begins)
        if missing == time_steps:
            return
        block.fill_row(
            row,
            np.pad(self._entries[first : first + time_steps + 1], (0, missing)),
            np.pad(begins, (0, missing)),
            np.arange(time_steps) < len(begins),
        )
