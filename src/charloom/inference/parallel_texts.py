"""Generates any number of texts in one batch, and refills its slots as texts end."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32

from charloom.inference.decoding_batch import DecodingBatch, WaitingTexts
from charloom.inference.generation import DecoderState, NativeDecoderState
from charloom.inference.text_batch import StepTimes, TextBatch
from charloom.inference.text_stream import FinishReason, StopDetector, TextStream
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


class _WaitingText(NamedTuple):
    """A text that has not begun.

    Attributes:
        number: how many texts come before it.
    """

    text: TextStream
    number: int
    stream_index: int


@dataclass(eq=False, slots=True)
class _BegunText:
    """A text in the batch.

    Attributes:
        number: how many texts come before it.
        begun: the step of its first token.
        decoded: the step of its first token that is not decoded yet.
    """

    text: TextStream
    number: int
    begun: int
    decoded: int


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
        end_id: the token that ends a record; None for continuous text.
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
        end_id: int | None,
        new_stop_detector: Callable[[], StopDetector],
        may_end: Bool[np.ndarray, " vocab"],
        before_generating: Callable[[], None] = lambda: None,
    ) -> None:
        self._state, self._length, self._settings, self._seed = state, length, settings, seed
        self._stream_indexes = iter(stream_indexes)
        self._end_id, self._new_stop_detector = end_id, new_stop_detector
        self._may_end = may_end
        self._before_generating = before_generating
        decoding = DecodingBatch.for_state(network, state)
        self._slots, self._call_seconds = decoding.USEFUL_TEXTS, decoding.CALL_SECONDS
        self._step_times = StepTimes()
        self._batch: TextBatch[_BegunText] = TextBatch(decoding, self._step_times)
        self._coming: deque[TextStream] = deque()  # not asked for yet
        self._waiting: deque[_WaitingText] = deque()  # not begun yet
        self._created = self._asked_for = 0  # numbers of texts
        self._held = 0  # characters of texts that have ended and have not been asked for
        # The latest tokens of each slot. The first column is step number `_first_step`.
        self._tokens = np.empty((self._slots, _COLUMNS), np.int32)
        self._first_step = self._now = 0
        self._last_steps = _FIRST_STEPS // 2
        self._generated = self._ended = self._ended_late = 0  # tokens; texts; texts whose slot was not refilled at once

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
        indexes = list(islice(self._stream_indexes, count))
        for number, index in enumerate(indexes, self._created):
            text = TextStream(self._new_stop_detector(), self._advance)
            self._coming.append(text)
            self._waiting.append(_WaitingText(text, number, index))
        self._created += len(indexes)
        return len(indexes)

    def _advance(self, read: TextStream) -> None:
        """Generates some tokens of each text in the batch, and decodes those of `read` and of texts that end."""
        self._fill_slots()
        steps = self._next_steps()
        column = self._now - self._first_step
        if column + steps > _COLUMNS:
            for slot in range(len(self._batch)):
                self._decode(slot, self._now)
            self._first_step, column = self._now, 0
        offered = self._offered(steps)
        waiting = WaitingTexts(self._state, [one.stream_index for one in offered], self._length, self._end_id)
        self._before_generating()
        tokens, begun = self._batch.generate_refilled(steps, waiting)
        self._tokens[: len(tokens), column : column + steps] = tokens
        for slot, step in zip(begun.places.tolist(), begun.steps.tolist(), strict=True):
            self._replace(slot, self._now + step)
        self._now += steps
        self._generated += tokens.size
        self._remove_ended(tokens)
        for slot, one in enumerate(self._batch.texts):
            if one.text is read:
                self._decode(slot, self._now)

    def _fill_slots(self) -> None:
        """Begins texts in the free slots."""
        if not (free := self._slots - len(self._batch)):
            return
        self._create_waiting(free)
        new = [self._waiting.popleft() for _ in range(min(free, len(self._waiting)))]
        if new:
            texts = [_BegunText(one.text, one.number, self._now, self._now) for one in new]
            indexes = [one.stream_index for one in new]
            self._batch.add(texts, self._state, self._settings, self._seed, indexes)

    def _create_waiting(self, count: int) -> None:
        """Creates texts until `count` wait, unless too many characters are held."""
        if len(self._waiting) < count and self._held <= _MAX_HELD_CHARACTERS:
            self._create(count - len(self._waiting))

    def _offered(self, steps: int) -> list[_WaitingText]:
        """Returns the waiting texts that may begin in the next steps, which are more than will probably end."""
        count = len(self._batch) * (1 + 2 * steps * self._ended // max(1, self._generated))
        self._create_waiting(count)
        return list(islice(self._waiting, count))

    def _next_steps(self) -> int:
        """Returns how many steps to take in the next call.

        A text that ends within a call of n steps wastes about n/2 of them, unless its slot is refilled at once. If one
        text in m tokens ends like this, it wastes a share of n/2m of the time. Calls cost a share of c/ns, with c for
        the cost of a call and s for that of a step. The sum is smallest for n = sqrt(2 m c / s).
        """
        seconds = self._step_times.of(len(self._batch), math.inf)
        steps = min(2 * self._last_steps, _MAX_STEPS)
        if math.isfinite(seconds):
            steps = min(steps, int(_MAX_CALL_SECONDS / seconds))
            if wasteful := self._ended_late if self._waiting else self._ended:
                tokens = self._generated / wasteful
                steps = min(steps, round(math.sqrt(2 * tokens * self._call_seconds / seconds)))
        longest = self._length - (self._now - max(one.begun for one in self._batch.texts))
        self._last_steps = max(1, steps if self._waiting else min(steps, longest))
        return self._last_steps

    def _decode(self, slot: int, until: int, ending: FinishReason | None = None) -> _BegunText:
        """Decodes the tokens of the text in `slot` that come before the step `until`."""
        one = self._batch.texts[slot]
        full = one.begun + self._length
        if full <= until:
            until, ending = full, "length"
        one.text.add(self._tokens[slot, one.decoded - self._first_step : until - self._first_step], ending)
        one.decoded = until
        return one

    def _replace(self, slot: int, step: int) -> None:
        """Takes note that the text in `slot` ended before `step`, and that the next waiting text began."""
        self._count_ended(self._decode(slot, step, "end"))
        new = self._waiting.popleft()
        self._batch.texts[slot] = _BegunText(new.text, new.number, step, step)

    def _remove_ended(self, tokens: Int32[np.ndarray, "texts steps"]) -> None:
        """Removes the texts that have ended without another one in their slot."""
        may_have_ended = self._may_end[tokens].any(axis=1).tolist()
        for slot in reversed(range(len(self._batch))):
            if not may_have_ended[slot] and self._batch.texts[slot].begun + self._length > self._now:
                continue
            one = self._decode(slot, self._now)
            if one.text.stopped is not None:
                self._count_ended(one)
                self._ended_late += 1
                self._batch.remove(slot)
                self._tokens[slot] = self._tokens[len(self._batch)]

    def _count_ended(self, one: _BegunText) -> None:
        self._ended += 1
        if one.number >= self._asked_for:
            self._held += _held_characters(one.text)


def _held_characters(text: TextStream) -> int:
    return _CHARACTERS_PER_TEXT + text.waiting_characters
