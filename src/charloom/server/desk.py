"""What there is to do for one model: orders, prompts on their way, and texts that are written, that rest, that end."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, Integer

from charloom.inference import Guesses, NativeStream, Stream, logits_of
from charloom.server.served import ServedModel
from charloom.settings import SamplingSettings

ROUND_SECONDS = 0.010
"""For writing in a round, and once more for sending: what is written first waits for what is written last, and then for
its turn to be sent."""
_KEPT_TEXT = 4096
"""Characters of a text, at most, whose state is kept when it is done."""
_LONGEST_ROUND = 512
"""Characters a text, however quick the network is."""


class Delivery(NamedTuple):
    """What the engine has come to with a text.

    Attributes:
        order: whose.
        token_ids: the next ones.
        is_prompt: whether they are the prompt's.
        nats: what each cost, where likelihoods are wanted.
        guesses: the likeliest in each place, where they are wanted.
        logits: of the token behind the last, where nothing is to be written.
        is_last: whether nothing more comes.
        problem: why it ended before its time.
    """

    order: "Order"
    token_ids: Integer[np.ndarray, " time"]
    is_prompt: bool = False
    nats: Float32[np.ndarray, " time"] | None = None
    guesses: Guesses | None = None
    logits: Float32[np.ndarray, " vocab"] | None = None
    is_last: bool = False
    problem: Exception | None = None


@dataclass(eq=False, kw_only=True)
class Order:
    """A text that is asked for.

    Attributes:
        model: who is to write it.
        prompt: its tokens.
        length: how many are wanted after it; 0 for the logits alone.
        settings: how they are chosen.
        seed: of the choices.
        stream_index: tells texts of one seed apart.
        guesses: how many are wanted in each place; None where likelihoods are not.
        with_prompt: whether the prompt's likelihoods are wanted, too.
        deliver: takes what comes, in the event loop.
        is_cancelled: whether nobody waits for it any more; set from any thread.
        is_paused: whether who reads is so far behind that the text need not go on; set from any thread.
    """

    model: ServedModel
    prompt: Integer[np.ndarray, " time"]
    length: int
    settings: SamplingSettings
    seed: int
    stream_index: int
    guesses: int | None = None
    with_prompt: bool = False
    deliver: Callable[[Delivery], None] = field(repr=False)
    is_cancelled: bool = False
    is_paused: bool = False


@dataclass(eq=False)
class _Reading:
    """A prompt on its way, and the orders of texts that go on from it."""

    orders: list[Order]
    read: int = 0
    stream: Stream | NativeStream | None = None
    is_begun: bool = False

    @property
    def prompt(self) -> Integer[np.ndarray, " time"]:
        return self.orders[0].prompt

    def takes(self, order: Order) -> bool:
        """Returns whether the texts of a request that have one prompt can wait for it together."""
        first = self.orders[0]
        return not self.is_begun and first.prompt is order.prompt and first.with_prompt == order.with_prompt


@dataclass(eq=False)
class _Writing:
    order: Order
    written: int = 0
    token_ids: bytearray = field(default_factory=bytearray)  # of the vocabulary's type, up to _KEPT_TEXT


class Desk:
    """What there is to do for one model."""

    def __init__(self, model: ServedModel) -> None:
        self.model = model
        self.reading: deque[_Reading] = deque()
        self.writing: list[_Writing] = []  # by their places among the model's texts
        self.resting: list[tuple[_Writing, Stream | NativeStream]] = []  # until who reads them has caught up
        self.wrote = 0.0  # when all were last given a turn
        self._cursor = 0  # the place that is next

    def begin(self, order: Order) -> None:
        """Takes an order up."""
        if self.reading and self.reading[-1].takes(order):
            self.reading[-1].orders.append(order)
        else:
            self.reading.append(_Reading([order]))

    @property
    def count(self) -> int:
        """Texts that are at work, or rest."""
        return sum(len(one.orders) for one in self.reading) + len(self.writing) + len(self.resting)

    @property
    def has_work(self) -> bool:
        """Whether there is anything to do now."""
        return bool(self.writing) or self.is_reading or any(not one.order.is_paused for one, _ in self.resting)

    @property
    def is_reading(self) -> bool:
        """Whether a prompt waits to be read."""
        return any(not _is_paused(one) for one in self.reading)

    def look_after(self) -> None:
        """Frees the places of those that nobody waits for, or that rest; takes up those that go on."""
        for reading in self.reading:
            reading.orders = [order for order in reading.orders if not order.is_cancelled]
        self.reading = deque(reading for reading in self.reading if reading.orders)
        for place in reversed(range(len(self.writing))):
            one = self.writing[place]
            if one.order.is_paused and not one.order.is_cancelled:
                self.resting.append((one, self.model.texts.stream(place)))
            if one.order.is_paused or one.order.is_cancelled:
                self._leave(place)
        rested, self.resting = self.resting, []
        for one, stream in rested:
            order = one.order
            if order.is_cancelled:
                continue
            if order.is_paused:
                self.resting.append((one, stream))
            else:
                self.model.texts.join(stream, order.settings, order.seed, order.stream_index, one.written)
                self.writing.append(one)

    def read(self, until: float) -> list[Delivery]:
        """Reads prompts, turn by turn, and lets those that have read theirs begin to write."""
        done: list[Delivery] = []
        for _ in range(len(self.reading)):
            reading = self.reading.popleft()
            if _is_paused(reading):
                self.reading.append(reading)
                continue
            if not reading.is_begun:
                reading.is_begun = True
                if reading.orders[0].with_prompt:  # each place's logits are wanted
                    reading.stream = self.model.begin
                else:
                    reading.read, reading.stream = self.model.known_beginning(reading.prompt)
            if reading.orders[0].with_prompt and len(reading.prompt):
                done += self._read_with_likelihoods(reading)
            else:
                reading.read, reading.stream = self.model.read_some(reading.stream, reading.prompt, reading.read)
            if reading.read < len(reading.prompt):
                self.reading.append(reading)
            else:
                done += self._read_to_the_end(reading)
            if time.perf_counter() > until:
                break
        return done

    def _read_with_likelihoods(self, reading: _Reading) -> list[Delivery]:
        prompt, begin = reading.prompt, reading.read
        end = min(len(prompt), begin + 64)
        logits = []
        for at in range(begin, end):
            assert reading.stream is not None  # a model of windows is not asked
            logits.append(logits_of(reading.stream))
            _, reading.stream = self.model.read_some(reading.stream, prompt[: at + 1], at)
        reading.read = end
        rated = _with_likelihoods(reading.orders[0], prompt[begin:end], logits, is_prompt=True)
        return [rated._replace(order=order) for order in reading.orders]

    def _read_to_the_end(self, reading: _Reading) -> list[Delivery]:
        prompt, stream = reading.prompt, reading.stream
        assert stream is not None  # something has been read, or the beginning is known
        if self.model.begin is not None and len(prompt):
            self.model.prefixes.keep(prompt, stream)
        done = []
        for order in reading.orders:
            if order.length == 0:
                done.append(Delivery(order, prompt[:0], logits=logits_of(stream), is_last=True))
            else:
                self.model.texts.join(stream, order.settings, order.seed, order.stream_index)
                self.writing.append(_Writing(order))
        return done

    def write_first(self) -> list[Delivery]:
        """Lets those that have just begun to write write one character."""
        first = len(self.writing)
        while first and self.writing[first - 1].written == 0:
            first -= 1
        return self._write(1, first, len(self.writing))

    def write(self, most_texts: int) -> list[Delivery]:
        """Lets the next texts, at most so many, write on for a while, and returns what came."""
        if self._cursor >= len(self.writing):
            self._cursor = 0
        turns = -(-len(self.writing) // most_texts)
        first, end = self._cursor, min(self._cursor + -(-len(self.writing) // max(1, turns)), len(self.writing))
        self._cursor = end
        return self._write(self._steps(first, end), first, end)

    def _write(self, steps: int, first: int, end: int) -> list[Delivery]:
        """Lets the texts in the places from `first` to `end` make so many steps, and returns what came."""
        if first == end:
            return []
        places = slice(first, end)
        watched = [place for place in range(first, end) if self.writing[place].order.guesses is not None]
        logits: dict[int, list[np.ndarray]] = {place: [] for place in watched}
        begin = time.perf_counter()
        if watched:
            written = []
            for _ in range(steps):
                for place in watched:
                    logits[place].append(self.model.texts.logits(place).copy())
                written.append(self.model.texts.write(1, places))
            tokens = np.concatenate(written, axis=1)
        else:
            tokens = self.model.texts.write(steps, places)
        done = self._handed_out(tokens, first, logits)
        self._learn(end - first, (time.perf_counter() - begin) / steps)
        return done

    def _handed_out(
        self, tokens: Integer[np.ndarray, "texts steps"], first: int, logits: dict[int, list[np.ndarray]]
    ) -> list[Delivery]:
        end_id, dtype = self.model.model.vocabulary.end_id, self.model.model.vocabulary.token_dtype
        has_ended = None if end_id is None else (tokens == end_id).any(axis=1)
        done = []
        for place in reversed(range(first, first + len(tokens))):
            one = self.writing[place]
            order, wanted = one.order, one.order.length - one.written
            token_ids = tokens[place - first, :wanted]
            one.written += len(token_ids)
            is_last = one.written >= order.length or (has_ended is not None and bool(has_ended[place - first]))
            if place in logits:
                delivery = _with_likelihoods(order, token_ids, logits[place][: len(token_ids)])
            else:
                delivery = Delivery(order, token_ids)
            done.append(delivery._replace(is_last=is_last))
            if order.length <= _KEPT_TEXT:
                one.token_ids += token_ids.astype(dtype).tobytes()
            if is_last:
                # Where nothing was written past the end, the state is that behind the whole text.
                if len(token_ids) == tokens.shape[1] and one.written == order.length <= _KEPT_TEXT:
                    self._keep(one, place)
                self._leave(place)
        return done

    def _keep(self, one: _Writing, place: int) -> None:
        """Keeps the state behind a text, for whoever goes on from there."""
        if self.model.begin is not None:
            written = np.frombuffer(one.token_ids, self.model.model.vocabulary.token_dtype)
            text = np.concatenate([one.order.prompt, written])
            self.model.prefixes.keep(text, self.model.texts.stream(place))

    def give_up(self, problem: Exception) -> list[Delivery]:
        """Leaves all work, and returns the last that there is to say of it."""
        orders = [order for reading in self.reading for order in reading.orders]
        orders += [one.order for one in (*self.writing, *(resting for resting, _ in self.resting))]
        self.reading.clear()
        self.writing.clear()
        self.resting.clear()
        while len(self.model.texts):
            self.model.texts.leave(0)
        return [Delivery(order, order.prompt[:0], is_last=True, problem=problem) for order in orders]

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
        most = max(one.order.length - one.written for one in texts)
        return max(1, min(int(ROUND_SECONDS / known), most, _LONGEST_ROUND))

    def _learn(self, texts: int, seconds: float) -> None:
        """Remembers how long a step of about so many texts takes."""
        size, known = texts.bit_length(), self.model.step_seconds
        known[size] = known.get(size, seconds) + 0.2 * (seconds - known.get(size, seconds))


def _is_paused(reading: _Reading) -> bool:
    return any(order.is_paused for order in reading.orders)


def _with_likelihoods(
    order: Order,
    token_ids: Integer[np.ndarray, " time"],
    logits: Sequence[Float32[np.ndarray, " vocab"]],
    is_prompt: bool = False,
) -> Delivery:
    assert order.guesses is not None  # callers ask
    count = order.guesses
    table = np.array(logits, np.float32).reshape(len(logits), -1)
    table -= table.max(axis=1, keepdims=True, initial=-np.inf)
    table -= np.log(np.exp(table).sum(axis=1, keepdims=True))
    ids = _likeliest(table, count)
    nats = -np.take_along_axis(table, token_ids[:, None].astype(np.int64), axis=1)[:, 0]
    return Delivery(order, token_ids, is_prompt, nats, Guesses(ids, np.take_along_axis(table, ids, axis=1)))


def _likeliest(table: Float32[np.ndarray, "time vocab"], count: int) -> Int32[np.ndarray, "time count"]:
    """Returns the `count` tokens of the highest numbers in each row, the highest first; of equals the lower token."""
    if count == 0:
        return np.zeros((len(table), 0), np.int32)
    return np.argsort(-table, axis=1, kind="stable")[:, :count].astype(np.int32)
