"""Turns generated token ids into pieces of text, and finds where the text ends."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Integer

from charloom.text import IncrementalDecoder

FinishReason = Literal["length", "stop", "end"]


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

    def add(self, token_ids: Integer[np.ndarray, " time"], ending: FinishReason | None = None) -> str:
        """Returns the text that `token_ids` complete. Characters that may begin a stop text are held back.

        Args:
            token_ids: the next tokens. What follows the end of a record is ignored.
            ending: why the text ends after them, unless it ends before; None if it does not.
        """
        if self._end_id is not None and (ends := (token_ids == self._end_id).nonzero()[0]).size:
            return self._end(token_ids[: ends[0]], "end")
        return self._completed(self._decode(token_ids)) if ending is None else self._end(token_ids, ending)

    def _end(self, token_ids: Integer[np.ndarray, " time"], reason: FinishReason) -> str:
        ready = self._completed(self._decode(token_ids, final=True))
        if self.stopped is None:
            self.stopped = reason
            ready += self._held
        return ready

    def _completed(self, piece: str) -> str:
        if not self._stops:
            return piece
        held = self._held + piece
        found = [at for stop in self._stops if (at := held.find(stop)) >= 0]
        if found:
            self.stopped = "stop"
            return held[: min(found)]
        # Characters that may begin a stop text wait for the next piece.
        ready = len(held) - max(_overlap(held, stop) for stop in self._stops)
        self._held = held[ready:]
        return held[:ready]


class TextStream:
    """An iterator over the pieces of a text while it is generated.

    Args:
        stop_detector: decodes the text and finds its end.
        advance: continues this text and others, which adds tokens to them.
    """

    def __init__(self, stop_detector: StopDetector, advance: Callable[["TextStream"], None]):
        self._stop_detector = stop_detector
        self._advance = advance
        self._pieces: deque[str] = deque()

    @property
    def stopped(self) -> FinishReason | None:
        """As in `StopDetector`. It may be set before the last pieces are read."""
        return self._stop_detector.stopped

    @property
    def waiting_characters(self) -> int:
        """Number of characters that have been generated and not read."""
        return sum(map(len, self._pieces))

    def add(self, token_ids: Integer[np.ndarray, " time"], ending: FinishReason | None = None) -> None:
        """Adds tokens, as `StopDetector.add` does."""
        if piece := self._stop_detector.add(token_ids, ending):
            self._pieces.append(piece)

    def __iter__(self) -> Iterator[str]:
        while True:
            while self._pieces:
                yield self._pieces.popleft()
            if self.stopped is not None:
                return
            self._advance(self)


def _overlap(text: str, stop: str) -> int:
    """Returns the length of the longest suffix of `text` that is a proper prefix of `stop`."""
    end = text[max(0, len(text) - len(stop) + 1) :]
    at = end.find(stop[0])
    while at >= 0 and not stop.startswith(end[at:]):
        at = end.find(stop[0], at + 1)
    return len(end) - at if at >= 0 else 0
