"""Turns generated token ids into pieces of text, and finds where the text ends."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Integer

from charloom.text import IncrementalDecoder

FinishReason = Literal["length", "stop", "end"]


def split_streams(blocks: Iterator[np.ndarray], count: int) -> list[Iterator[np.ndarray]]:
    """Returns an iterator for each of the `count` rows of `blocks`.

    Blocks that one iterator requests are kept for the others.
    """
    waiting: list[deque[np.ndarray]] = [deque() for _ in range(count)]

    def row(own: deque[np.ndarray]) -> Iterator[np.ndarray]:
        while True:
            if not own:
                block = next(blocks, None)
                if block is None:
                    return
                for row, ids in zip(waiting, block, strict=True):
                    row.append(ids)
            yield own.popleft()

    return [row(own) for own in waiting]


class StopDetector:
    """Decodes a text token by token and finds its end.

    Attributes:
        stopped: why the text ended: "length", "stop" for a stop text, or "end" for the end of a record.
            None until then.
    """

    def __init__(self, decode: IncrementalDecoder, stops: Sequence[str] = (), end_id: int | None = None) -> None:
        self.stopped: FinishReason | None = None
        self._decode = decode
        self._stops = stops
        self._end_id = end_id
        self._held = ""

    def add(self, token_ids: Integer[np.ndarray, " time"]) -> str:
        """Returns the text that `token_ids` complete. Characters that may begin a stop text are held back."""
        if self._end_id is not None and (ends := np.flatnonzero(token_ids == self._end_id)).size:
            return self._end(token_ids[: ends[0]], "end")
        return self._completed(self._decode(token_ids))

    def finish(self) -> str:
        """Returns the rest of a text that has reached its length."""
        return self._end(np.zeros(0, np.int32), "length")

    def _end(self, token_ids: Integer[np.ndarray, " time"], reason: FinishReason) -> str:
        ready = self._completed(self._decode(token_ids) + self._decode(np.zeros(0, np.int32), final=True))
        if self.stopped is None:
            self.stopped = reason
            ready += self._held
        return ready

    def _completed(self, piece: str) -> str:
        held = self._held + piece
        found = [at for stop in self._stops if (at := held.find(stop)) >= 0]
        if found:
            self.stopped = "stop"
            return held[: min(found)]
        # Characters that may begin a stop text wait for the next piece.
        ready = len(held) - max((_overlap(held, stop) for stop in self._stops), default=0)
        self._held = held[ready:]
        return held[:ready]


class TextStream:
    """An iterator over the pieces of a text while it is generated.

    Attributes:
        stopped: as in `StopDetector`.
    """

    def __init__(
        self,
        blocks: Iterator[np.ndarray],
        decode: IncrementalDecoder,
        stop: str | None = None,
        end_id: int | None = None,
    ):
        self._stop_detector = StopDetector(decode, () if stop is None else (stop,), end_id)
        self._pieces = self._generated(blocks)

    @property
    def stopped(self) -> FinishReason | None:
        return self._stop_detector.stopped

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    def _generated(self, blocks: Iterator[np.ndarray]) -> Iterator[str]:
        for token_ids in blocks:
            if piece := self._stop_detector.add(token_ids):
                yield piece
            if self.stopped:
                return
        if piece := self._stop_detector.finish():
            yield piece


def _overlap(text: str, stop: str) -> int:
    """Returns the length of the longest suffix of `text` that is a proper prefix of `stop`."""
    end = text[max(0, len(text) - len(stop) + 1) :]
    at = end.find(stop[0])
    while at >= 0 and not stop.startswith(end[at:]):
        at = end.find(stop[0], at + 1)
    return len(end) - at if at >= 0 else 0
