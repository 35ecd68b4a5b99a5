"""Generates any number of texts in one batch, and refills its slots as texts end."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import numpy as np
from jaxtyping import Bool

from charloom.inference.decoding_batch import DecodingBatch
from charloom.inference.generation import DecoderState, NativeDecoderState
from charloom.inference.text_batch import StepTimes, TextBatch
from charloom.inference.text_stream import StopDetector, TextStream
from charloom.models import Network
from charloom.settings import SamplingSettings

_FIRST_STEPS = 4
"""Steps of the first call, so that the first characters arrive at once."""
_MAX_STEPS = 256
_MAX_CALL_SECONDS = 0.050
"""Maximum duration of a call, unless a single step takes longer. Each call adds a piece to a text that is read."""
_COLUMNS = 1024
"""Number of tokens per text that are kept before they are decoded."""
_MAX_HELD_CHARACTERS = 1 << 22
"""While texts that have not been asked for have more characters than this, no further text begins."""
_CHARACTERS_PER_TEXT = 200
"""What a text counts in addition to its characters, because Python's objects take memory."""


class ParallelTexts(Iterator[TextStream]):
    """An iterator over texts that continue the same state, in the order of their stream indexes.

    Reading any of the texts continues all texts in the batch. When a text ends, the next one takes its slot.
    Later texts can end before an earlier one; they are held until they are asked for.

    Args:
        network: the network that has read `state`.
        state: the common state of the texts; it does not change.
        length: maximum number of tokens per text.
        settings: the sampling settings.
        seed: seed of the sampler. A text's random numbers depend only on it, the stream index and the position.
        stream_indexes: one index per text; there may be infinitely many. A text does not depend on the other indexes.
        new_stop_detector: returns a detector for a new text.
        may_end: which tokens can be the last one that a stop detector needs to find the end of a text.
        before_generating: called before each block of tokens is generated, which takes some milliseconds.
    """

    def __init__(
        self,
        network: Network,
        state: DecoderState | NativeDecoderState,
        length: int,
        settings: SamplingSettings,
        *,
        seed: int,
        stream_indexes: Iterable[int],
        new_stop_detector: Callable[[], StopDetector],
        may_end: Bool[np.ndarray, " vocab"],
        before_generating: Callable[[], None] = lambda: None,
    ) -> None:
        self._state, self._length, self._settings, self._seed = state, length, settings, seed
        self._stream_indexes = iter(stream_indexes)
        self._new_stop_detector = new_stop_detector
        self._may_end = may_end
        self._before_generating = before_generating
        decoding = DecodingBatch.for_state(network, state)
        self._slots, self._call_seconds = decoding.USEFUL_TEXTS, decoding.CALL_SECONDS
        self._step_times = StepTimes()
        self._batch: TextBatch[TextStream] = TextBatch(decoding, self._step_times)
        self._coming: deque[TextStream] = deque()  # not asked for yet
        self._waiting: deque[tuple[TextStream, int]] = deque()  # not begun yet, with their stream indexes
        self._asked_for = self._created = 0  # numbers of texts
        self._held = 0  # characters of texts that have ended and have not been asked for
        # The tokens of each slot's text that are not decoded yet. The first column is step `_done`, the next one follows.
        self._tokens = np.empty((self._slots, _COLUMNS), np.int32)
        self._done = self._columns = 0
        self._begun = np.zeros(self._slots, np.int64)  # the step in which each slot's text began
        self._decoded = np.zeros(self._slots, np.int64)  # the step up to which it is decoded
        self._numbers = np.zeros(self._slots, np.int64)  # how many texts were created before it
        self._last_steps = _FIRST_STEPS // 2
        self._generated = self._ended = 0  # tokens and texts so far

    def __next__(self) -> TextStream:
        if not self._coming and not self._create(1):
            raise StopIteration
        text = self._coming.popleft()
        self._asked_for += 1
        if text.stopped is not None:
            self._held -= _held_characters(text)
        return text

    def _create(self, count: int) -> int:
        """Creates up to `count` more texts. Returns how many."""
        new = [(self._new_text(), index) for index in islice(self._stream_indexes, count)]
        self._coming += [text for text, _ in new]
        self._waiting += new
        self._created += len(new)
        return len(new)

    def _new_text(self) -> TextStream:
        return TextStream(self._new_stop_detector(), self._advance)

    def _advance(self, read: TextStream) -> None:
        """Generates some tokens of each text in the batch, and decodes those of `read` and of texts that end."""
        self._refill()
        steps = self._next_steps()
        if self._columns + steps > _COLUMNS:
            for slot in range(len(self._batch)):
                self._decode(slot)
            self._done, self._columns = self._now, 0
        self._before_generating()
        tokens = self._batch.generate(steps)
        self._tokens[: len(tokens), self._columns : self._columns + steps] = tokens
        self._columns += steps
        self._generated += tokens.size
        has_ended = self._may_end[tokens].any(axis=1)
        has_ended |= self._begun[: len(tokens)] <= self._now - self._length
        for slot in reversed(np.flatnonzero(has_ended).tolist()):
            if self._decode(slot):
                self._remove(slot)
        if read.stopped is None and read in self._batch.texts:
            self._decode(self._batch.texts.index(read))

    @property
    def _now(self) -> int:
        """Number of steps so far."""
        return self._done + self._columns

    def _refill(self) -> None:
        first = len(self._batch)
        free = self._slots - first
        if len(self._waiting) < free and self._held <= _MAX_HELD_CHARACTERS:
            self._create(free - len(self._waiting))
        if not (count := min(free, len(self._waiting))):
            return
        number = self._created - len(self._waiting)
        self._numbers[first : first + count] = np.arange(number, number + count)
        texts, indexes = zip(*(self._waiting.popleft() for _ in range(count)), strict=True)
        self._batch.add(texts, self._state, self._settings, self._seed, indexes)
        self._begun[first : first + count] = self._decoded[first : first + count] = self._now

    def _next_steps(self) -> int:
        """Returns how many steps to take in the next call.

        With n steps per call, a text of mean length m that ends within a call wastes about n/2 of its m tokens, and
        the calls cost c/n per step. The sum is smallest for n = sqrt(2 m c / s), with s for the duration of a step.
        """
        seconds = self._step_times.of(len(self._batch), math.inf)
        steps = min(2 * self._last_steps, _MAX_STEPS)
        if math.isfinite(seconds):
            steps = min(steps, int(_MAX_CALL_SECONDS / seconds))
            if self._ended:
                steps = min(steps, round(math.sqrt(2 * self._generated / self._ended * self._call_seconds / seconds)))
        longest = self._length - (self._now - int(self._begun[: len(self._batch)].max()))
        self._last_steps = max(1, min(steps, longest))
        return self._last_steps

    def _decode(self, slot: int) -> bool:
        """Decodes the tokens of the text in `slot` that are not decoded yet. Returns whether it has ended."""
        begin, end = self._decoded.item(slot), self._begun.item(slot) + self._length
        tokens = self._tokens[slot, begin - self._done : min(self._now, end) - self._done]
        self._decoded[slot] = self._now
        text = self._batch.texts[slot]
        text.add(tokens, is_last=end <= self._now)
        return text.stopped is not None

    def _remove(self, slot: int) -> None:
        self._ended += 1
        if self._numbers[slot] >= self._asked_for:
            self._held += _held_characters(self._batch.texts[slot])
        self._batch.remove(slot)
        last = len(self._batch)
        for array in (self._tokens, self._begun, self._decoded, self._numbers):
            array[slot] = array[last]


def _held_characters(text: TextStream) -> int:
    return _CHARACTERS_PER_TEXT + text.waiting_characters
