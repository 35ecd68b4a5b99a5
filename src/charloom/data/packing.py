"""Packing: texts of different lengths in lanes side by side, one after another within a lane."""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer

from charloom.data.block import Block


@dataclass(frozen=True)
class Packing:
    """Which lane reads which texts.

    Attributes:
        lanes: of each lane the texts' places in the order given, first to last.
        steps: of the longest lane.
    """

    lanes: tuple[tuple[int, ...], ...]
    steps: int

    @classmethod
    def of_lengths(cls, lengths: Sequence[int], lanes: int) -> "Packing":
        """Returns a packing into lanes of about one length: the longest texts first, each into the shortest lane.

        >>> Packing.of_lengths([3, 8, 4], 2)
        Packing(lanes=((1,), (2, 0)), steps=8)
        """
        loads = [(0, lane) for lane in range(lanes)]
        places: list[list[int]] = [[] for _ in range(lanes)]
        for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
            load, lane = loads[0]
            places[lane].append(place)
            heapq.heapreplace(loads, (load + lengths[place], lane))
        return cls(tuple(map(tuple, places)), max(load for load, _ in loads))

    def blocks(self, texts: Sequence[Integer[np.ndarray, " _"]], capacity: int, unroll_length: int) -> Iterator[Block]:
        """Yields the blocks in which the lanes read `texts`, each of them from the beginning of a text."""
        rows = [_Lane([texts[place] for place in places]) for places in self.lanes]
        block_steps = capacity * unroll_length
        for first in range(0, self.steps, block_steps):
            updates = min(capacity, -(-(self.steps - first) // unroll_length))
            block = Block.empty(capacity, len(rows), unroll_length, updates)
            for lane, row in enumerate(rows):
                row.fill(block, lane, first)
            yield block


class _Lane:
    """Texts end to end, as a lane reads them."""

    def __init__(self, texts: Sequence[Integer[np.ndarray, " _"]]) -> None:
        # What stands before a text's first token is not read: a text begins after the start input.
        self._entries = np.concatenate([np.zeros(1, np.int32), *texts])
        lengths = np.array([len(text) for text in texts if len(text)], np.int64)
        self._begins = np.zeros(lengths.sum(), bool)
        self._begins[np.cumsum(lengths) - lengths] = True

    def fill(self, block: Block, lane: int, first: int) -> None:
        steps = block.updates * block.unroll_length
        begins = self._begins[first : first + steps]
        missing = steps - len(begins)
        if missing == steps:
            return
        block.fill_lane(
            lane,
            np.pad(self._entries[first : first + steps + 1], (0, missing)),
            np.pad(begins, (0, missing)),
            np.arange(steps) < len(begins),
        )
