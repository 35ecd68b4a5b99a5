"""The texts of a decoding batch, slot by slot, and how long its steps take.

`ParallelTexts` and the server generate with it.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Int32

from charloom.inference.decoding_batch import DecodingBatch, WaitingTexts
from charloom.inference.generation import DecoderState, NativeDecoderState
from charloom.kernels import Begun
from charloom.settings import SamplingSettings

Text = TypeVar("Text")


class StepTimes:
    """Estimates the duration of a step by the bit length of the number of texts."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}

    def of(self, texts: int, unknown: float) -> float:
        """Returns the seconds of a step with about `texts` texts; `unknown` if there was none yet."""
        return self._seconds.get(texts.bit_length(), unknown)

    def record(self, texts: int, seconds: float) -> None:
        """Takes into account a step with `texts` texts."""
        known = self._seconds.get(texts.bit_length(), seconds)
        weight = 0.2 if seconds > known else 0.5  # the first step may include compilation
        self._seconds[texts.bit_length()] = known + weight * (seconds - known)


class TextBatch(Generic[Text]):
    """A decoding batch whose slots belong to texts of the caller.

    Attributes:
        decoding: the batch, to which no one else adds texts.
        texts: the text in each slot.
    """

    def __init__(self, decoding: DecodingBatch, step_times: StepTimes) -> None:
        self.decoding = decoding
        self.texts: list[Text] = []
        self._step_times = step_times

    def __len__(self) -> int:
        return len(self.texts)

    def add(
        self,
        texts: Sequence[Text],
        state: DecoderState | NativeDecoderState,
        settings: SamplingSettings,
        seed: int,
        stream_indexes: Sequence[int],
        position: int = 0,
    ) -> None:
        """Adds texts in new slots after the last one, as `DecodingBatch.add` does."""
        self.decoding.add(state, settings, seed, stream_indexes, position)
        self.texts += texts

    def remove(self, slot: int) -> None:
        """Removes the text in `slot`. The last text takes its slot."""
        self.decoding.remove(slot)
        self.texts[slot] = self.texts[-1]
        self.texts.pop()

    def generate(self, steps: int, slots: slice = slice(None)) -> Int32[np.ndarray, "texts steps"]:
        """Returns the next tokens of the texts in `slots`, and measures the time."""
        with self._measured(len(self.texts[slots]), steps):
            return self.decoding.generate(steps, slots)

    def generate_refilled(self, steps: int, waiting: WaitingTexts) -> tuple[Int32[np.ndarray, "texts steps"], Begun]:
        """Does what `DecodingBatch.generate_refilled` does, and measures the time. The caller replaces the texts."""
        with self._measured(len(self.texts), steps):
            return self.decoding.generate_refilled(steps, waiting)

    @contextmanager
    def _measured(self, texts: int, steps: int) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self._step_times.record(texts, (time.perf_counter() - begin) / steps)

    def clear(self) -> None:
        """Removes all texts. It allocates nothing, so it works even if memory has run out."""
        self.decoding.clear()
        self.texts.clear()
