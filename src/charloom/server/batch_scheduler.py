"""What there is to do for one model: requests, prompts being read, and texts that are sampled, rest or end."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, Integer

from charloom.inference import DecoderState, NativeDecoderState, TopPredictions, logits_of
from charloom.server.model_session import ModelSession
from charloom.settings import SamplingSettings

ROUND_SECONDS = 0.010
"""For writing in a round, and once more for sending: what is generated first waits for what is generated last, and then for
its turn to be sent."""
_MAX_CACHED_TEXT = 4096
"""Characters of a text, at most, whose state is kept when it is done."""
_MAX_ROUND_STEPS = 512
"""Characters a text, however quick the network is."""
_MAX_STEP_SECONDS = 0.050
"""Of texts side by side; where it takes longer, fewer are given a turn at once, so that who leaves is noticed."""
_MAX_SCORED_TOKENS = 64
"""Tokens of a prompt whose likelihoods are wanted, at most."""

_Steps = tuple[Integer[np.ndarray, " steps"], list[np.ndarray] | None]
"""A text's next tokens, and what the logits of each were where they are wanted."""

logger = logging.getLogger("charloom.server")


class TokenChunk(NamedTuple):
    """What the engine has come to with a text.

    Attributes:
        request: whose.
        token_ids: the next ones.
        is_prompt: whether they are the prompt's.
        nats: what each cost, where likelihoods are wanted.
        top_predictions: the likeliest in each slot, where they are wanted.
        logits: of the token behind the last, where nothing is to be generated.
        is_last: whether nothing more comes.
        problem: why it ended before its time.
    """

    request: "GenerationRequest"
    token_ids: Integer[np.ndarray, " time"]
    is_prompt: bool = False
    nats: Float32[np.ndarray, " time"] | None = None
    top_predictions: TopPredictions | None = None
    logits: Float32[np.ndarray, " vocab"] | None = None
    is_last: bool = False
    problem: Exception | None = None


@dataclass(eq=False, kw_only=True)
class GenerationRequest:
    """A text that is asked for.

    Attributes:
        model: who is to write it.
        prompt: its tokens.
        length: how many are wanted after it; 0 for the logits alone.
        settings: how they are chosen.
        seed: of the choices.
        stream_index: tells texts of one seed apart.
        top_predictions: how many are wanted in each slot; None where likelihoods are not.
        with_prompt: whether the prompt's likelihoods are wanted, too.
        deliver: takes what comes, in the event loop.
        is_cancelled: whether nobody waits for it any more; set from any thread.
        is_paused: whether who reads is so far behind that the text need not go on; set from any thread.
    """

    model: ModelSession
    prompt: Integer[np.ndarray, " time"]
    length: int
    settings: SamplingSettings
    seed: int
    stream_index: int
    top_predictions: int | None = None
    with_prompt: bool = False
    on_chunk: Callable[[TokenChunk], None] = field(repr=False)
    is_cancelled: bool = False
    is_paused: bool = False


@dataclass(eq=False)
class _PromptRead:
    """A prompt being read, and the requests that continue it."""

    requests: list[GenerationRequest]
    read: int = 0
    state: DecoderState | NativeDecoderState | None = None
    has_started: bool = False

    @property
    def prompt(self) -> Integer[np.ndarray, " time"]:
        return self.requests[0].prompt

    def can_share(self, request: GenerationRequest) -> bool:
        """Returns whether the texts of a request that have one prompt can wait for it together."""
        first = self.requests[0]
        return not self.has_started and first.prompt is request.prompt and first.with_prompt == request.with_prompt


@dataclass(eq=False)
class _ActiveText:
    request: GenerationRequest
    generated: int = 0
    token_ids: bytearray = field(default_factory=bytearray)  # of the vocabulary's type, up to _MAX_CACHED_TEXT


class BatchScheduler:
    """What there is to do for one model."""

    def __init__(self, model: ModelSession) -> None:
        self.model = model
        self.prompts: deque[_PromptRead] = deque()
        self.generating: list[_ActiveText] = []  # by their slots among the model's texts
        self.paused: list[
            tuple[_ActiveText, DecoderState | NativeDecoderState]
        ] = []  # until who reads them has caught up
        self.last_round = 0.0  # when all were last given a turn
        self._cursor = 0  # the slot that is next

    def add(self, request: GenerationRequest) -> None:
        """Takes a request."""
        if self.prompts and self.prompts[-1].can_share(request):
            self.prompts[-1].requests.append(request)
        else:
            self.prompts.append(_PromptRead([request]))

    @property
    def count(self) -> int:
        """Texts that are at work, or rest."""
        return sum(len(one.requests) for one in self.prompts) + len(self.generating) + len(self.paused)

    @property
    def has_work(self) -> bool:
        """Whether there is anything to do now."""
        return bool(self.generating) or self.is_reading or any(not one.request.is_paused for one, _ in self.paused)

    @property
    def is_reading(self) -> bool:
        """Whether a prompt waits to be read."""
        return any(not _is_paused(one) for one in self.prompts)

    def refresh(self) -> list[TokenChunk]:
        """Frees the slots of those that nobody waits for, or that rest; takes up those that go on.

        Returns the last chunks of those with which that fails.
        """
        for reading in self.prompts:
            reading.requests = [request for request in reading.requests if not request.is_cancelled]
        self.prompts = deque(reading for reading in self.prompts if reading.requests)
        failed: list[TokenChunk] = []
        for slot in reversed(range(len(self.generating))):
            one = self.generating[slot]
            if one.request.is_paused and not one.request.is_cancelled:
                try:
                    self.paused.append((one, self.model.batch.state(slot)))
                except Exception as problem:
                    failed.append(_failed(one.request, problem))
                self._remove(slot)
            elif one.request.is_cancelled:
                self._remove(slot)
        paused, self.paused = self.paused, []
        for one, state in paused:
            if one.request.is_paused and not one.request.is_cancelled:
                self.paused.append((one, state))
            elif not one.request.is_cancelled:
                failed += self._start(one, state)
        return failed

    def _start(self, one: _ActiveText, state: DecoderState | NativeDecoderState) -> list[TokenChunk]:
        """Lets a text be generated from now on; returns its last chunk if that fails."""
        request = one.request
        try:
            self.model.batch.add(state, request.settings, request.seed, request.stream_index, one.generated)
        except Exception as problem:
            return [_failed(request, problem)]
        self.generating.append(one)
        return []

    def read_prompts(self, until: float) -> list[TokenChunk]:
        """Reads prompts, turn by turn, and lets those that have read theirs begin to write."""
        done: list[TokenChunk] = []
        for _ in range(len(self.prompts)):
            reading = self.prompts.popleft()
            if _is_paused(reading):
                self.prompts.append(reading)
                continue
            try:
                done += self._read_chunk(reading)
            except Exception as problem:
                done += [_failed(request, problem) for request in reading.requests]
            else:
                if reading.read < len(reading.prompt):
                    self.prompts.append(reading)
                else:
                    done += self._finish_prompt(reading)
            if time.perf_counter() > until:
                break
        return done

    def _read_chunk(self, reading: _PromptRead) -> list[TokenChunk]:
        """Reads some of a prompt, and returns what came of it."""
        is_scored = reading.requests[0].with_prompt
        if not reading.has_started:
            reading.has_started = True
            if is_scored:  # each slot's logits are wanted
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
            assert state is not None  # a model of windows is not asked
            logits.append(logits_of(state))
            _, state = self.model.read_chunk(state, prompt[: at + 1], at)
            at += 1
        scored = _with_likelihoods(reading.requests[0], prompt[begin:at], logits, is_prompt=True)
        reading.read, reading.state = at, state
        return [scored._replace(request=request) for request in reading.requests]

    def _finish_prompt(self, reading: _PromptRead) -> list[TokenChunk]:
        prompt, state = reading.prompt, reading.state
        assert state is not None  # something has been read, or the beginning is known
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
        """Keeps a state for whoever continues from there; no text depends on it."""
        try:
            self.model.prefix_cache.put(token_ids, state)
        except Exception:
            logger.exception("a state could not be kept; whoever continues from there has to read it again")

    def generate_first(self) -> list[TokenChunk]:
        """Lets those that have just begun to write write one character."""
        first = len(self.generating)
        while first and self.generating[first - 1].generated == 0:
            first -= 1
        return self._generate(1, first, len(self.generating))

    def generate(self, max_texts: int) -> list[TokenChunk]:
        """Lets the next texts, at most so many, write on for a while, and returns what came."""
        if self._cursor >= len(self.generating):
            self._cursor = 0
        while max_texts > 1 and self.model.step_seconds.get(max_texts.bit_length(), 0.0) > _MAX_STEP_SECONDS:
            max_texts //= 2
        turns = -(-len(self.generating) // max_texts)
        first, end = self._cursor, min(self._cursor + -(-len(self.generating) // max(1, turns)), len(self.generating))
        self._cursor = end
        return self._generate(self._round_steps(first, end), first, end)

    def _generate(self, steps: int, first: int, end: int) -> list[TokenChunk]:
        """Lets the texts in the slots from `first` to `end` make so many steps, and returns what came."""
        if first == end:
            return []
        begin = time.perf_counter()
        generated = self._generate_or_split(steps, first, end)
        self._record_step_time(end - first, (time.perf_counter() - begin) / steps)
        done = []
        # The last first: whoever leaves is replaced by the last of all.
        for slot in reversed(range(first, end)):
            one, came = self.generating[slot], generated[slot - first]
            try:
                if isinstance(came, Exception):
                    raise came
                chunk = self._chunk(one, slot, *came)
            except Exception as problem:
                chunk = _failed(one.request, problem)
            done.append(chunk)
            if chunk.is_last:
                self._remove(slot)
        return done

    def _generate_or_split(self, steps: int, first: int, end: int) -> list[_Steps | Exception]:
        """Returns what each text came to in so many steps; one that cannot go on does not keep the others from it.

        What fails together is tried again in halves, from where it was.
        """
        slots, batch = slice(first, end), self.model.batch
        try:
            batch.save(slots)
            try:
                return list(self._generate_batch(steps, first, end))
            except Exception:
                batch.restore(slots)
                raise
        except Exception as problem:
            if end - first == 1:
                return [problem]
            logger.warning("%d texts failed together, and are generated apart: %r", end - first, problem)
        middle = (first + end) // 2
        return [*self._generate_or_split(steps, first, middle), *self._generate_or_split(steps, middle, end)]

    def _generate_batch(self, steps: int, first: int, end: int) -> Iterator[_Steps]:
        batch, slots = self.model.batch, slice(first, end)
        watched = [slot for slot in range(first, end) if self.generating[slot].request.top_predictions is not None]
        if not watched:
            return ((row, None) for row in batch.generate(steps, slots))
        logits: dict[int, list[np.ndarray]] = {slot: [] for slot in watched}
        generated = []
        for _ in range(steps):
            for slot in watched:
                logits[slot].append(batch.logits(slot).copy())
            generated.append(batch.generate(1, slots))
        rows = np.concatenate(generated, axis=1)
        return ((row, logits.get(slot)) for slot, row in enumerate(rows, first))

    def _chunk(
        self, one: _ActiveText, slot: int, tokens: Integer[np.ndarray, " steps"], logits: list[np.ndarray] | None
    ) -> TokenChunk:
        """Returns what a text has come to with the tokens that were generated for it, of which it may need fewer."""
        vocabulary, request = self.model.model.vocabulary, one.request
        token_ids = tokens[: request.length - one.generated]
        if logits is None:
            chunk = TokenChunk(request, token_ids)
        else:
            chunk = _with_likelihoods(request, token_ids, logits[: len(token_ids)])
        one.generated += len(token_ids)
        if request.length <= _MAX_CACHED_TEXT:
            one.token_ids += token_ids.astype(vocabulary.token_dtype).tobytes()
        has_ended = vocabulary.end_id is not None and bool((tokens == vocabulary.end_id).any())
        is_last = one.generated >= request.length or has_ended
        # Where nothing was generated past the end, the state is that behind the whole text.
        is_whole = is_last and len(token_ids) == len(tokens) and one.generated == request.length
        if is_whole and request.length <= _MAX_CACHED_TEXT and self.model.start_state is not None:
            text = np.frombuffer(one.token_ids, vocabulary.token_dtype)
            self._cache_state(np.concatenate([request.prompt, text]), self.model.batch.state(slot))
        return chunk._replace(is_last=is_last)

    def abort_all(self) -> list[GenerationRequest]:
        """Gives up all work, and returns the requests, whose texts end here. Nothing in it can fail but for a bug."""
        requests = [request for reading in self.prompts for request in reading.requests]
        requests += [one.request for one in (*self.generating, *(text for text, _ in self.paused))]
        self.prompts.clear()
        self.generating.clear()
        self.paused.clear()
        self.model.batch.clear()
        return requests

    def _remove(self, slot: int) -> None:
        self.model.batch.remove(slot)
        self.generating[slot] = self.generating[-1]
        self.generating.pop()

    def _round_steps(self, first: int, end: int) -> int:
        """Returns how many steps to make in a round; one where somebody waits for a first character."""
        texts = self.generating[first:end]
        if not texts or any(one.generated == 0 for one in texts):
            return 1
        known = self.model.step_seconds.get(len(texts).bit_length(), ROUND_SECONDS)
        most = max(one.request.length - one.generated for one in texts)
        return max(1, min(int(ROUND_SECONDS / known), most, _MAX_ROUND_STEPS))

    def _record_step_time(self, texts: int, seconds: float) -> None:
        """Remembers how long a step of about so many texts takes."""
        size, known = texts.bit_length(), self.model.step_seconds
        known[size] = known.get(size, seconds) + 0.2 * (seconds - known.get(size, seconds))


def _failed(request: GenerationRequest, problem: Exception) -> TokenChunk:
    """Returns the last chunk of a text that cannot go on."""
    logger.error("a text could not go on", exc_info=problem)
    return TokenChunk(request, request.prompt[:0], is_last=True, problem=problem)


def _is_paused(reading: _PromptRead) -> bool:
    return any(request.is_paused for request in reading.requests)


def _with_likelihoods(
    request: GenerationRequest,
    token_ids: Integer[np.ndarray, " time"],
    logits: Sequence[Float32[np.ndarray, " vocab"]],
    is_prompt: bool = False,
) -> TokenChunk:
    assert request.top_predictions is not None  # callers ask
    count = request.top_predictions
    table = np.array(logits, np.float32).reshape(len(logits), -1)
    table -= table.max(axis=1, keepdims=True, initial=-np.inf)
    table -= np.log(np.exp(table).sum(axis=1, keepdims=True))
    ids = _likeliest(table, count)
    nats = -np.take_along_axis(table, token_ids[:, None].astype(np.int64), axis=1)[:, 0]
    return TokenChunk(request, token_ids, is_prompt, nats, TopPredictions(ids, np.take_along_axis(table, ids, axis=1)))


def _likeliest(table: Float32[np.ndarray, "time vocab"], count: int) -> Int32[np.ndarray, "time count"]:
    """Returns the `count` tokens of the highest numbers in each row, the highest first; of equals the lower token."""
    if count == 0:
        return np.zeros((len(table), 0), np.int32)
    return np.argsort(-table, axis=1, kind="stable")[:, :count].astype(np.int32)
