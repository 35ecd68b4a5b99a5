"""A text as it is written: token ids in, pieces of text out, up to where it ends."""

from collections import deque
from collections.abc import Iterator
from typing import Literal

import numpy as np

from charloom.text import IncrementalDecoder


def lanes_of(blocks: Iterator[np.ndarray], count: int) -> list[Iterator[np.ndarray]]:
    """Returns an iterator for each of the `count` rows of `blocks`; what one asks for is kept for the others."""
    waiting: list[deque[np.ndarray]] = [deque() for _ in range(count)]

    def lane(own: deque[np.ndarray]) -> Iterator[np.ndarray]:
        while True:
            if not own:
                block = next(blocks, None)
                if block is None:
                    return
                for row, ids in zip(waiting, block, strict=True):
                    row.append(ids)
            yield own.popleft()

    return [lane(own) for own in waiting]


class Writing:
    """An iterator over the pieces of a text as it is written.

    Attributes:
        stopped: why the text ended, once it has: "length", "stop" for the text given to stop at, or "end" for a
            record's.
    """

    def __init__(
        self,
        blocks: Iterator[np.ndarray],
        decode: IncrementalDecoder,
        stop: str | None = None,
        end_id: int | None = None,
    ):
        self.stopped: Literal["length", "stop", "end"] | None = None
        self._ended = False
        self._pieces = self._until(stop, self._decoded(blocks, decode, end_id))

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    def _decoded(self, blocks: Iterator[np.ndarray], decode: IncrementalDecoder, end_id: int | None) -> Iterator[str]:
        for token_ids in blocks:
            ends = np.flatnonzero(token_ids == (-1 if end_id is None else end_id))
            if len(ends):
                self._ended = True
                yield decode(token_ids[: ends[0]])
                break
            yield decode(token_ids)
        yield decode(np.zeros(0, np.int32), final=True)

    def _until(self, stop: str | None, pieces: Iterator[str]) -> Iterator[str]:
        held = ""
        for piece in pieces:
            held += piece
            if stop is not None and stop in held:
                self.stopped = "stop"
                yield held[: held.index(stop)]
                return
            # What may be the beginning of `stop` has to wait for the next piece.
            ready = len(held) - _overlap(held, stop or "")
            if ready:
                yield held[:ready]
            held = held[ready:]
        self.stopped = "end" if self._ended else "length"
        if held:
            yield held


def _overlap(text: str, stop: str) -> int:
    """Returns the length of the longest end of `text` that `stop`, longer than it, begins with."""
    longest = min(len(stop) - 1, len(text))
    return next((count for count in range(longest, 0, -1) if text.endswith(stop[:count])), 0)
