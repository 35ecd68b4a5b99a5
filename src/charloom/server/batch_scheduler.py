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
"""For writing in a round, and once more for sending: what is written first waits for what is written last, and then for
its turn to be sent."""
_KEPT_TEXT = 4096
"""Characters of a text, at most, whose state is kept when it is done."""
_LONGEST_ROUND = 512
"""Characters a text, however quick the network is."""
_LONGEST_STEP_SECONDS = 0.050
"""Of texts side by side; where it takes longer, fewer are given a turn at once, so that who leaves is noticed."""
_RATED_AT_ONCE = 64
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
        top_predictions: the likeliest in each place, where they are wanted.
        logits: of the token behind the last, where nothing is to be written.
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
        top_predictions: how many are wanted in each place; None where likelihoods are not.
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
    deliver: Callable[[TokenChunk], None] = field(repr=False)
    is_cancelled: bool = False
    is_paused: bool = False


@dataclass(eq=False)
class _Reading:
    """A prompt being read, and the requests that continue it."""

    requests: list[GenerationRequest]
    read: int = 0
    stream: DecoderState | NativeDecoderState | None = None
    is_begun: bool = False

    @property
    def prompt(self) -> Integer[np.ndarray, " time"]:
        return self.requests[0].prompt

    def takes(self, request: GenerationRequest) -> bool:
        """Returns whether the texts of a request that have one prompt can wait for it together."""
        first = self.requests[0]
        return not self.is_begun and first.prompt is request.prompt and first.with_prompt == request.with_prompt


@dataclass(eq=False)
class _Writing:
    request: GenerationRequest
    written: int = 0
    token_ids: bytearray = field(default_factory=bytearray)  # of the vocabulary's type, up to _KEPT_TEXT


class BatchScheduler:
    """What there is to do for one model."""

    def __init__(self, model: ModelSession) -> None:
        self.model = model
        self.reading: deque[_Reading] = deque()
        self.writing: list[_Writing] = []  # by their places among the model's texts
        self.resting: list[
            tuple[_Writing, DecoderState | NativeDecoderState]
        ] = []  # until who reads them has caught up
        self.wrote = 0.0  # when all were last given a turn
        self._cursor = 0  # the place that is next

    def begin(self, request: GenerationRequest) -> None:
        """Takes a request."""
        if self.reading and self.reading[-1].takes(request):
            self.reading[-1].requests.append(request)
        else:
            self.reading.append(_Reading([request]))

    @property
    def count(self) -> int:
        """Texts that are at work, or rest."""
        return sum(len(one.requests) for one in self.reading) + len(self.writing) + len(self.resting)

    @property
    def has_work(self) -> bool:
        """Whether there is anything to do now."""
        return bool(self.writing) or self.is_reading or any(not one.request.is_paused for one, _ in self.resting)

    @property
    def is_reading(self) -> bool:
        """Whether a prompt waits to be read."""
        return any(not _is_paused(one) for one in self.reading)

    def look_after(self) -> list[TokenChunk]:
        """Frees the places of those that nobody waits for, or that rest; takes up those that go on.

        Returns the last chunks of those with which that fails.
        """
        for reading in self.reading:
            reading.requests = [request for request in reading.requests if not request.is_cancelled]
        self.reading = deque(reading for reading in self.reading if reading.requests)
        failed: list[TokenChunk] = []
        for place in reversed(range(len(self.writing))):
            one = self.writing[place]
            if one.request.is_paused and not one.request.is_cancelled:
                try:
                    self.resting.append((one, self.model.texts.stream(place)))
                except Exception as problem:
                    failed.append(_failed(one.request, problem))
                self._leave(place)
            elif one.request.is_cancelled:
                self._leave(place)
        rested, self.resting = self.resting, []
        for one, stream in rested:
            if one.request.is_paused and not one.request.is_cancelled:
                self.resting.append((one, stream))
            elif not one.request.is_cancelled:
                failed += self._join(one, stream)
        return failed

    def _join(self, one: _Writing, stream: DecoderState | NativeDecoderState) -> list[TokenChunk]:
        """Lets a text be written from now on; returns its last chunk if that fails."""
        request = one.request
        try:
            self.model.texts.join(stream, request.settings, request.seed, request.stream_index, one.written)
        except Exception as problem:
            return [_failed(request, problem)]
        self.writing.append(one)
        return []

    def read(self, until: float) -> list[TokenChunk]:
        """Reads prompts, turn by turn, and lets those that have read theirs begin to write."""
        done: list[TokenChunk] = []
        for _ in range(len(self.reading)):
            reading = self.reading.popleft()
            if _is_paused(reading):
                self.reading.append(reading)
                continue
            try:
                done += self._read_on(reading)
            except Exception as problem:
                done += [_failed(request, problem) for request in reading.requests]
            else:
                if reading.read < len(reading.prompt):
                    self.reading.append(reading)
                else:
                    done += self._read_to_the_end(reading)
            if time.perf_counter() > until:
                break
        return done

    def _read_on(self, reading: _Reading) -> list[TokenChunk]:
        """Reads some of a prompt, and returns what came of it."""
        is_rated = reading.requests[0].with_prompt
        if not reading.is_begun:
            reading.is_begun = True
            if is_rated:  # each place's logits are wanted
                reading.stream = self.model.begin
            else:
                reading.read, reading.stream = self.model.known_beginning(reading.prompt)
        if is_rated and len(reading.prompt):
            return self._read_with_likelihoods(reading)
        reading.read, reading.stream = self.model.read_some(reading.stream, reading.prompt, reading.read)
        return []

    def _read_with_likelihoods(self, reading: _Reading) -> list[TokenChunk]:
        prompt, begin = reading.prompt, reading.read
        end, until = min(len(prompt), begin + _RATED_AT_ONCE), time.perf_counter() + ROUND_SECONDS
        logits, stream, at = [], reading.stream, begin
        while at < end and (at == begin or time.perf_counter() < until):
            assert stream is not None  # a model of windows is not asked
            logits.append(logits_of(stream))
            _, stream = self.model.read_some(stream, prompt[: at + 1], at)
            at += 1
        rated = _with_likelihoods(reading.requests[0], prompt[begin:at], logits, is_prompt=True)
        reading.read, reading.stream = at, stream
        return [rated._replace(request=request) for request in reading.requests]

    def _read_to_the_end(self, reading: _Reading) -> list[TokenChunk]:
        prompt, stream = reading.prompt, reading.stream
        assert stream is not None  # something has been read, or the beginning is known
        if self.model.begin is not None and len(prompt):
            self._keep(prompt, stream)
        done = []
        for request in reading.requests:
            if request.length == 0:
                done.append(TokenChunk(request, prompt[:0], logits=logits_of(stream), is_last=True))
            else:
                done += self._join(_Writing(request), stream)
        return done

    def _keep(self, token_ids: Integer[np.ndarray, " time"], stream: DecoderState | NativeDecoderState) -> None:
        """Keeps a state for whoever continues from there; no text depends on it."""
        try:
            self.model.prefixes.keep(token_ids, stream)
        except Exception:
            logger.exception("a state could not be kept; whoever continues from there has to read it again")

    def write_first(self) -> list[TokenChunk]:
        """Lets those that have just begun to write write one character."""
        first = len(self.writing)
        while first and self.writing[first - 1].written == 0:
            first -= 1
        return self._write(1, first, len(self.writing))

    def write(self, most_texts: int) -> list[TokenChunk]:
        """Lets the next texts, at most so many, write on for a while, and returns what came."""
        if self._cursor >= len(self.writing):
            self._cursor = 0
        while most_texts > 1 and self.model.step_seconds.get(most_texts.bit_length(), 0.0) > _LONGEST_STEP_SECONDS:
            most_texts //= 2
        turns = -(-len(self.writing) // most_texts)
        first, end = self._cursor, min(self._cursor + -(-len(self.writing) // max(1, turns)), len(self.writing))
        self._cursor = end
        return self._write(self._steps(first, end), first, end)

    def _write(self, steps: int, first: int, end: int) -> list[TokenChunk]:
        """Lets the texts in the places from `first` to `end` make so many steps, and returns what came."""
        if first == end:
            return []
        begin = time.perf_counter()
        written = self._written(steps, first, end)
        self._learn(end - first, (time.perf_counter() - begin) / steps)
        done = []
        # The last first: whoever leaves is replaced by the last of all.
        for place in reversed(range(first, end)):
            one, came = self.writing[place], written[place - first]
            try:
                if isinstance(came, Exception):
                    raise came
                chunk = self._chunk(one, place, *came)
            except Exception as problem:
                chunk = _failed(one.request, problem)
            done.append(chunk)
            if chunk.is_last:
                self._leave(place)
        return done

    def _written(self, steps: int, first: int, end: int) -> list[_Steps | Exception]:
        """Returns what each text came to in so many steps; one that cannot go on does not keep the others from it.

        What fails together is tried again in halves, from where it was.
        """
        places, texts = slice(first, end), self.model.texts
        try:
            texts.save(places)
            try:
                return list(self._steps_of(steps, first, end))
            except Exception:
                texts.restore(places)
                raise
        except Exception as problem:
            if end - first == 1:
                return [problem]
            logger.warning("%d texts failed together, and are written apart: %r", end - first, problem)
        middle = (first + end) // 2
        return [*self._written(steps, first, middle), *self._written(steps, middle, end)]

    def _steps_of(self, steps: int, first: int, end: int) -> Iterator[_Steps]:
        texts, places = self.model.texts, slice(first, end)
        watched = [place for place in range(first, end) if self.writing[place].request.top_predictions is not None]
        if not watched:
            return ((row, None) for row in texts.write(steps, places))
        logits: dict[int, list[np.ndarray]] = {place: [] for place in watched}
        written = []
        for _ in range(steps):
            for place in watched:
                logits[place].append(texts.logits(place).copy())
            written.append(texts.write(1, places))
        rows = np.concatenate(written, axis=1)
        return ((row, logits.get(place)) for place, row in enumerate(rows, first))

    def _chunk(
        self, one: _Writing, place: int, tokens: Integer[np.ndarray, " steps"], logits: list[np.ndarray] | None
    ) -> TokenChunk:
        """Returns what a text has come to with the tokens that were written for it, of which it may need fewer."""
        vocabulary, request = self.model.model.vocabulary, one.request
        token_ids = tokens[: request.length - one.written]
        if logits is None:
            chunk = TokenChunk(request, token_ids)
        else:
            chunk = _with_likelihoods(request, token_ids, logits[: len(token_ids)])
        one.written += len(token_ids)
        if request.length <= _KEPT_TEXT:
            one.token_ids += token_ids.astype(vocabulary.token_dtype).tobytes()
        has_ended = vocabulary.end_id is not None and bool((tokens == vocabulary.end_id).any())
        is_last = one.written >= request.length or has_ended
        # Where nothing was written past the end, the state is that behind the whole text.
        is_whole = is_last and len(token_ids) == len(tokens) and one.written == request.length
        if is_whole and request.length <= _KEPT_TEXT and self.model.begin is not None:
            text = np.frombuffer(one.token_ids, vocabulary.token_dtype)
            self._keep(np.concatenate([request.prompt, text]), self.model.texts.stream(place))
        return chunk._replace(is_last=is_last)

    def abandon(self) -> list[GenerationRequest]:
        """Gives up all work, and returns the requests, whose texts end here. Nothing in it can fail but for a bug."""
        requests = [request for reading in self.reading for request in reading.requests]
        requests += [one.request for one in (*self.writing, *(resting for resting, _ in self.resting))]
        self.reading.clear()
        self.writing.clear()
        self.resting.clear()
        self.model.texts.clear()
        return requests

    def _leave(self, place: int) -> None:
        self.model.texts.leave(place)
        self.writing[place] = self.writing[-1]
        self.writing.pop()

    def _steps(self, first: int, end: int) -> int:
        """Returns how many steps to make in a round; one where somebody waits for a first character."""
        texts = self.writing[first:end]
        if not texts or any(one.written == 0 for one in texts):
            return 1
        known = self.model.step_seconds.get(len(texts).bit_length(), ROUND_SECONDS)
        most = max(one.request.length - one.written for one in texts)
        return max(1, min(int(ROUND_SECONDS / known), most, _LONGEST_ROUND))

    def _learn(self, texts: int, seconds: float) -> None:
        """Remembers how long a step of about so many texts takes."""
        size, known = texts.bit_length(), self.model.step_seconds
        known[size] = known.get(size, seconds) + 0.2 * (seconds - known.get(size, seconds))


def _failed(request: GenerationRequest, problem: Exception) -> TokenChunk:
    """Returns the last chunk of a text that cannot go on."""
    logger.error("a text could not go on", exc_info=problem)
    return TokenChunk(request, request.prompt[:0], is_last=True, problem=problem)


def _is_paused(reading: _Reading) -> bool:
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
