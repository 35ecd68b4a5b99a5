"""Schedules the texts of one model: requests, prompts being read, and texts in generation, paused or finished."""

import logging
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Integer

from charloom.inference import DecoderState, NativeDecoderState, TextBatch, logits_of
from charloom.server.generation_request import GenerationRequest, TokenChunk, failed_chunk, scored_chunk
from charloom.server.model_session import ModelSession

ROUND_SECONDS = 0.010
"""Seconds per round for generation, and as many again for sending.

The first text of a round waits for the last one to be generated, and then to be sent."""
_MAX_CACHED_TEXT = 4096
"""Maximum length of a text whose final state is cached, in characters."""
_MAX_ROUND_STEPS = 512
"""Maximum number of characters per text and round, however fast the network is."""
_MAX_STEP_SECONDS = 0.050
"""Maximum duration of a step of several texts. A round takes fewer texts beyond it, to notice cancellations sooner."""
_MAX_SCORED_TOKENS = 64
"""Maximum number of prompt tokens that are read at once when their log-probabilities are requested."""

_Steps = tuple[Integer[np.ndarray, " steps"], list[np.ndarray] | None]
"""A text's next tokens, and the logits before each of them if they are needed."""

logger = logging.getLogger("charloom.server")


@dataclass(eq=False)
class _PromptRead:
    """A prompt that is being read, and the requests that continue it."""

    requests: list[GenerationRequest]
    read: int = 0
    state: DecoderState | NativeDecoderState | None = None
    has_started: bool = False

    @property
    def prompt(self) -> Integer[np.ndarray, " time"]:
        return self.requests[0].prompt

    def can_share(self, request: GenerationRequest) -> bool:
        """Returns whether `request` has the same prompt and can wait for it together with the others."""
        first = self.requests[0]
        return not self.has_started and first.prompt is request.prompt and first.with_prompt == request.with_prompt


@dataclass(eq=False)
class _ActiveText:
    request: GenerationRequest
    generated: int = 0
    token_ids: bytearray = field(default_factory=bytearray)  # in the vocabulary's dtype, up to _MAX_CACHED_TEXT


class BatchScheduler:
    """Schedules the texts of one model.

    Methods that do work return the resulting chunks.
    """

    def __init__(self, model: ModelSession) -> None:
        self.model = model
        self.prompts: deque[_PromptRead] = deque()
        self.batch: TextBatch[_ActiveText] = TextBatch(model.batch, model.step_times)
        # Texts whose readers are behind, until the readers have caught up.
        self.paused: list[tuple[_ActiveText, DecoderState | NativeDecoderState]] = []
        self.last_round = 0.0  # time of the last round of all texts
        self._cursor = 0  # the first slot of the next round

    def add(self, request: GenerationRequest) -> None:
        """Adds a request."""
        if self.prompts and self.prompts[-1].can_share(request):
            self.prompts[-1].requests.append(request)
        else:
            self.prompts.append(_PromptRead([request]))

    @property
    def count(self) -> int:
        """Number of texts, including paused ones."""
        return sum(len(one.requests) for one in self.prompts) + len(self.batch) + len(self.paused)

    @property
    def has_work(self) -> bool:
        """Whether any work can be done now."""
        return bool(self.batch.texts) or self.is_reading or any(not one.request.is_paused for one, _ in self.paused)

    @property
    def is_reading(self) -> bool:
        """Whether a prompt is waiting to be read."""
        return any(not _is_paused(one) for one in self.prompts)

    def refresh(self) -> list[TokenChunk]:
        """Removes cancelled and paused texts from the batch, and adds texts that are no longer paused.

        Returns the last chunks of those texts for which that fails.
        """
        for reading in self.prompts:
            reading.requests = [request for request in reading.requests if not request.is_cancelled]
        self.prompts = deque(reading for reading in self.prompts if reading.requests)
        failed: list[TokenChunk] = []
        for slot in reversed(range(len(self.batch))):
            one = self.batch.texts[slot]
            if one.request.is_paused and not one.request.is_cancelled:
                try:
                    self.paused.append((one, self.batch.decoding.state(slot)))
                except Exception as problem:
                    failed.append(failed_chunk(one.request, problem))
                self.batch.remove(slot)
            elif one.request.is_cancelled:
                self.batch.remove(slot)
        paused, self.paused = self.paused, []
        for one, state in paused:
            if one.request.is_paused and not one.request.is_cancelled:
                self.paused.append((one, state))
            elif not one.request.is_cancelled:
                failed += self._start(one, state)
        return failed

    def _start(self, one: _ActiveText, state: DecoderState | NativeDecoderState) -> list[TokenChunk]:
        """Adds a text to the batch. Returns its last chunk if that fails."""
        request = one.request
        try:
            indexes = [request.stream_index]
            self.batch.add([one], state, request.settings, request.seed, indexes, one.generated)
        except Exception as problem:
            return [failed_chunk(request, problem)]
        return []

    def read_prompts(self, until: float) -> list[TokenChunk]:
        """Reads prompts in turn until `until`. Texts whose prompt is complete enter the batch."""
        done: list[TokenChunk] = []
        for _ in range(len(self.prompts)):
            reading = self.prompts.popleft()
            if _is_paused(reading):
                self.prompts.append(reading)
                continue
            try:
                done += self._read_chunk(reading)
            except Exception as problem:
                done += [failed_chunk(request, problem) for request in reading.requests]
            else:
                if reading.read < len(reading.prompt):
                    self.prompts.append(reading)
                else:
                    done += self._finish_prompt(reading)
            if time.perf_counter() > until:
                break
        return done

    def _read_chunk(self, reading: _PromptRead) -> list[TokenChunk]:
        """Reads a chunk of a prompt."""
        is_scored = reading.requests[0].with_prompt
        if not reading.has_started:
            reading.has_started = True
            if is_scored:  # the logits at every position are needed
                reading.state = self.model.start_state
            else:
                reading.read, reading.state = self.model.cached_prefix(reading.prompt)
        if is_scored and len(reading.prompt):
            return self._read_with_likelihoods(reading)
        reading.read, reading.state = self.model.read_chunk(reading.state, reading.prompt, reading.read)
        return []

    def _read_with_likelihoods(self, reading: _PromptRead) -> list[TokenChunk]:
        prompt, begin = reading.prompt, reading.read
        end, until = min(len(prompt), begin + _MAX_SCORED_TOKENS), time.perf_counter() + ROUND_SECONDS
        logits, state, at = [], reading.state, begin
        while at < end and (at == begin or time.perf_counter() < until):
            assert state is not None  # models of windows refuse such requests
            logits.append(logits_of(state))
            _, state = self.model.read_chunk(state, prompt[: at + 1], at)
            at += 1
        scored = scored_chunk(reading.requests[0], prompt[begin:at], logits, is_prompt=True)
        reading.read, reading.state = at, state
        return [scored._replace(request=request) for request in reading.requests]

    def _finish_prompt(self, reading: _PromptRead) -> list[TokenChunk]:
        prompt, state = reading.prompt, reading.state
        assert state is not None  # something has been read, or the prefix was cached
        if self.model.start_state is not None and len(prompt):
            self._cache_state(prompt, state)
        done = []
        for request in reading.requests:
            if request.length == 0:
                done.append(TokenChunk(request, prompt[:0], logits=logits_of(state), is_last=True))
            else:
                done += self._start(_ActiveText(request), state)
        return done

    def _cache_state(self, token_ids: Integer[np.ndarray, " time"], state: DecoderState | NativeDecoderState) -> None:
        """Caches a state for later prompts with the same prefix. No text depends on it."""
        try:
            self.model.prefix_cache.put(token_ids, state)
        except Exception:
            logger.exception("cannot cache a state; prompts with this prefix will be read again")

    def generate_first(self) -> list[TokenChunk]:
        """Generates one character of each text that has just begun."""
        texts = self.batch.texts
        first = len(texts)
        while first and texts[first - 1].generated == 0:
            first -= 1
        return self._generate(1, first, len(texts))

    def generate(self, max_texts: int) -> list[TokenChunk]:
        """Generates some characters of the next texts, at most `max_texts` of them."""
        count = len(self.batch)
        if self._cursor >= count:
            self._cursor = 0
        while max_texts > 1 and self.model.step_times.of(max_texts, 0.0) > _MAX_STEP_SECONDS:
            max_texts //= 2
        turns = -(-count // max_texts)
        first, end = self._cursor, min(self._cursor + -(-count // max(1, turns)), count)
        self._cursor = end
        return self._generate(self._round_steps(first, end), first, end)

    def _generate(self, steps: int, first: int, end: int) -> list[TokenChunk]:
        """Generates `steps` tokens of the texts in the slots from `first` to `end`."""
        if first == end:
            return []
        generated = self._generate_or_split(steps, first, end)
        done = []
        # In reverse order, because the last text takes the slot of a removed one.
        for slot in reversed(range(first, end)):
            one, result = self.batch.texts[slot], generated[slot - first]
            try:
                if isinstance(result, Exception):
                    raise result
                chunk = self._chunk(one, slot, *result)
            except Exception as problem:
                chunk = failed_chunk(one.request, problem)
            done.append(chunk)
            if chunk.is_last:
                self.batch.remove(slot)
        return done

    def _generate_or_split(self, steps: int, first: int, end: int) -> list[_Steps | Exception]:
        """Returns the next tokens of each text, or why it failed. A text that fails does not affect the others.

        If the texts fail together, they are restored and tried again in two halves.
        """
        slots, decoding = slice(first, end), self.batch.decoding
        try:
            decoding.save(slots)
            try:
                return list(self._generate_batch(steps, first, end))
            except Exception:
                decoding.restore(slots)
                raise
        except Exception as problem:
            if end - first == 1:
                return [problem]
            logger.warning("%d texts failed together; retrying them in two halves: %r", end - first, problem)
        middle = (first + end) // 2
        return [*self._generate_or_split(steps, first, middle), *self._generate_or_split(steps, middle, end)]

    def _generate_batch(self, steps: int, first: int, end: int) -> Iterator[_Steps]:
        slots, texts = slice(first, end), self.batch.texts
        watched = [slot for slot in range(first, end) if texts[slot].request.top_predictions is not None]
        if not watched:
            return ((row, None) for row in self.batch.generate(steps, slots))
        logits: dict[int, list[np.ndarray]] = {slot: [] for slot in watched}
        generated = []
        for _ in range(steps):
            for slot in watched:
                logits[slot].append(self.batch.decoding.logits(slot).copy())
            generated.append(self.batch.generate(1, slots))
        rows = np.concatenate(generated, axis=1)
        return ((row, logits.get(slot)) for slot, row in enumerate(rows, first))

    def _chunk(
        self, one: _ActiveText, slot: int, tokens: Integer[np.ndarray, " steps"], logits: list[np.ndarray] | None
    ) -> TokenChunk:
        """Returns the chunk of a text from its new tokens, of which it may need only some."""
        vocabulary, request = self.model.model.vocabulary, one.request
        token_ids = tokens[: request.length - one.generated]
        if logits is None:
            chunk = TokenChunk(request, token_ids)
        else:
            chunk = scored_chunk(request, token_ids, logits[: len(token_ids)])
        one.generated += len(token_ids)
        if request.length <= _MAX_CACHED_TEXT:
            one.token_ids += token_ids.astype(vocabulary.token_dtype).tobytes()
        has_ended = vocabulary.end_id is not None and bool((tokens == vocabulary.end_id).any())
        is_last = one.generated >= request.length or has_ended
        # If nothing was generated beyond the end, the state is that after the whole text.
        is_whole = is_last and len(token_ids) == len(tokens) and one.generated == request.length
        if is_whole and request.length <= _MAX_CACHED_TEXT and self.model.start_state is not None:
            text = np.frombuffer(one.token_ids, vocabulary.token_dtype)
            self._cache_state(np.concatenate([request.prompt, text]), self.batch.decoding.state(slot))
        return chunk._replace(is_last=is_last)

    def abort_all(self) -> list[GenerationRequest]:
        """Removes all texts, and returns their requests. It can fail only because of a bug."""
        requests = [request for reading in self.prompts for request in reading.requests]
        requests += [one.request for one in (*self.batch.texts, *(text for text, _ in self.paused))]
        self.prompts.clear()
        self.paused.clear()
        self.batch.clear()
        return requests

    def _round_steps(self, first: int, end: int) -> int:
        """Returns the number of steps for a round; 1 if a text is waiting for its first character."""
        texts = self.batch.texts[first:end]
        if not texts or any(one.generated == 0 for one in texts):
            return 1
        known = self.model.step_times.of(len(texts), ROUND_SECONDS)
        longest = max(one.request.length - one.generated for one in texts)
        return max(1, min(int(ROUND_SECONDS / known), longest, _MAX_ROUND_STEPS))


def _is_paused(reading: _PromptRead) -> bool:
    return any(request.is_paused for request in reading.requests)
