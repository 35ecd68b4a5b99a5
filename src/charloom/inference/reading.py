"""Scoring character by character: many texts side by side, or one that is read on and on.

Each way is one compiled program, whatever the lengths, so that nothing is compiled for a line of a new length.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Float32, Int32, Integer, Shaped

from charloom.data import Block, Packing
from charloom.errors import UnknownCharacterError
from charloom.kernels import compiled
from charloom.models import Carry, Network, cross_entropy
from charloom.settings import TextSettings, UnknownPolicy
from charloom.text import Line, Vocabulary, one_record
from charloom.units import bits_from_nats, perplexity_from_nats

_SEQUENCE_LENGTH = 64
_BATCH_SIZE = 64
# One row wants long blocks: a call's cost is not spread over rows.
_CAPACITY = {1: 64, _BATCH_SIZE: 8}
# A step of all rows takes as long as so many of one.
_COST_OF_ALL_ROWS = 12
# Of a call that has to be short: parameters times steps of one row, a few milliseconds on two cores.
_SHORT_WORK = 1 << 25
_SHORTEST_SEQUENCE = 2
_TOGETHER = 1 << 20
"""Characters that are packed together, at most."""

PEAK = 3
"""How many characters make a text's peak."""


@dataclass(frozen=True)
class Score:
    """What each character of a text cost a model.

    Attributes:
        text: the characters (or bytes) that were scored, one for each number.
        nats: the negative logarithm of the probability that the model gave to each, having read those before it.
        unknown: characters of the text that the model does not know, and left out or took for another one.
        top_predictions: the most likely tokens in each place, where they were asked for.
    """

    text: str | bytes
    nats: Float32[np.ndarray, " characters"]
    unknown: int = 0
    top_predictions: "TopPredictions | None" = None

    @property
    def characters(self) -> int:
        """How many were scored."""
        return len(self.nats)

    @property
    def total_nats(self) -> float:
        """The sum, in float64."""
        return float(self.nats.sum(dtype=np.float64))

    @property
    def nats_per_char(self) -> float:
        """The mean; not a number where nothing was scored."""
        return self.total_nats / self.characters if self.characters else math.nan

    @property
    def bits_per_char(self) -> float:
        """The mean in bits."""
        return bits_from_nats(self.nats_per_char)

    @property
    def perplexity_per_char(self) -> float:
        """The number of equally likely characters that would be as hard to guess."""
        return perplexity_from_nats(self.nats_per_char)

    @property
    def highest(self) -> Float32[np.ndarray, " peak"]:
        """What the most surprising characters cost, in nats; as many as `PEAK`, if there are."""
        return np.partition(self.nats, -PEAK)[-PEAK:] if self.characters > PEAK else self.nats

    @property
    def peak_bits(self) -> float:
        """The mean of `highest` in bits: what is odd in one place alone shows here, and is lost in the whole's mean."""
        return peak_bits(self.highest.tolist())

    @property
    def bits(self) -> Float32[np.ndarray, " characters"]:
        """What each character cost, in bits."""
        return self.nats / np.float32(math.log(2))


def peak_bits(highest: Sequence[float]) -> float:
    """Returns the mean in bits; not a number where nothing was scored."""
    return bits_from_nats(math.fsum(highest) / len(highest)) if highest else math.nan


class TopPredictions(NamedTuple):
    """The most likely tokens in each character's place, the likeliest first.

    Attributes:
        token_ids: their ids.
        log_probs: natural logarithms of their probabilities.
    """

    token_ids: Int32[np.ndarray, "characters top_predictions"]
    log_probs: Float32[np.ndarray, "characters top_predictions"]


class _Shape(NamedTuple):
    """Of the blocks that one call reads."""

    batch_size: int
    capacity: int
    sequence_length: int

    @classmethod
    def of(cls, batch_size: int, parameters: int, *, is_short: bool) -> "_Shape":
        """Returns the quickest shape for so many parameters; if calls have to be short, one of a few milliseconds."""
        if not is_short:
            return cls(batch_size, _CAPACITY[batch_size], _SEQUENCE_LENGTH)
        time_steps = _SHORT_WORK // (parameters * (1 if batch_size == 1 else _COST_OF_ALL_ROWS))
        sequence_length = max(_SHORTEST_SEQUENCE, min(_SEQUENCE_LENGTH, 1 << max(0, time_steps.bit_length() - 1)))
        return cls(batch_size, max(1, min(_CAPACITY[batch_size], time_steps // sequence_length)), sequence_length)


class Reading:
    """One text, from its beginning on.

    Sequences begin at the same characters however the text is cut into pieces, so that the numbers are the same, to the
    last bit. What stands behind the last whole sequence is read again with the next piece.

    Args:
        network: what reads.
        top_predictions: how many of the most likely tokens are wanted in each place.
        check: is called before each call, which is then short; what it raises ends the reading.
    """

    def __init__(self, network: Network, top_predictions: int = 0, check: Callable[[], None] | None = None) -> None:
        self._network = network
        self._top_predictions = top_predictions
        self._check = check or _go_on
        self._shape = _Shape.of(1, network.parameters, is_short=check is not None)
        self._carry = network.zero_carry(1)
        # The entry before the first is not read: a text begins after the start input.
        self._entries: Integer[np.ndarray, " time"] = np.zeros(1, np.int32)
        self._is_begun = False

    def read(self, token_ids: Integer[np.ndarray, " time"]) -> tuple[Float32[np.ndarray, " time"], TopPredictions]:
        """Returns the nats of the next tokens, and what was guessed in their places."""
        if not len(token_ids):
            return np.zeros(0, np.float32), TopPredictions(
                *(np.zeros((0, self._top_predictions), kind) for kind in ("i4", "f4"))
            )
        scored_before = len(self._entries) - 1
        self._entries = np.concatenate([self._entries, token_ids])
        parts = []
        _, capacity, sequence_length = self._shape
        while (time_steps := len(self._entries) - 1) > 0:
            self._check()
            time_steps = min(time_steps, capacity * sequence_length)
            whole = time_steps // sequence_length
            block = self._block(time_steps)
            read, self._carry = _read_block(
                self._network,
                block.token_ids,
                block.resets,
                block.steps,
                whole,
                self._carry,
                top_predictions=self._top_predictions,
            )
            parts.append([_in_a_row(array)[:time_steps] for array in read])
            self._entries = self._entries[whole * sequence_length :]
            self._is_begun |= whole > 0
            if whole < capacity:
                break
        nats, ids, log_probs = (np.concatenate(arrays)[scored_before:] for arrays in zip(*parts, strict=True))
        return nats, TopPredictions(ids, log_probs)

    def _block(self, time_steps: int) -> Block:
        _, capacity, sequence_length = self._shape
        steps = -(-time_steps // sequence_length)
        missing = steps * sequence_length - time_steps
        block = Block.empty(capacity, 1, sequence_length, steps)
        resets = np.zeros(time_steps + missing, bool)
        resets[0] = not self._is_begun
        block.fill_row(0, np.pad(self._entries[: time_steps + 1], (0, missing)), resets)
        return block


def _in_a_row(array: Shaped[Array, "capacity sequence 1 *_"]) -> Shaped[np.ndarray, "..."]:
    """Returns the array of one row with capacity and sequence as one axis, time."""
    capacity, sequence_length, _, *rest = array.shape
    return np.asarray(array).reshape(capacity * sequence_length, *rest)


class _Encoded(NamedTuple):
    """A text's ids, the part of it that they stand for, and how many of its characters are unknown."""

    token_ids: Integer[np.ndarray, " time"]
    text: str | bytes
    unknown: int


class Scorer:
    """Says what texts cost a network, each from its beginning or after a prompt.

    Attributes:
        vocabulary: the same.
        settings: the same.
        unknown: how often which unknown characters were met.

    Args:
        network: what reads.
        vocabulary: which characters its ids stand for.
        settings: how texts are read; of them only the case matters here.
        prompt: is read before each text, and not scored.
        unknown: what becomes of characters that the vocabulary has not.
        check: is called every few milliseconds of reading; what it raises ends the reading. The last bits of the
            numbers of large networks may differ from those without it.
    """

    def __init__(
        self,
        network: Network,
        vocabulary: Vocabulary,
        settings: TextSettings,
        *,
        prompt: str | bytes = "",
        unknown: UnknownPolicy = "error",
        check: Callable[[], None] | None = None,
    ) -> None:
        self.vocabulary = vocabulary
        self.settings = settings
        self._network = network
        self._unknown: UnknownPolicy = unknown
        self.unknown: Counter[str] = Counter()
        self._prompt = self._encoded(prompt).token_ids
        self._check = check
        self._shapes = {
            batch_size: _Shape.of(batch_size, network.parameters, is_short=check is not None)
            for batch_size in _CAPACITY
        }

    def ended(self, line: Line) -> str | bytes:
        """Returns the text of `line` with what the model reads as its end, if that has come.

        A record ends even where nothing stands behind it; one without any character is none. The end of another line
        is a newline, where the vocabulary has it.
        """
        record_end = self.vocabulary.record_end
        if line.problem is not None:
            return line.text
        if record_end is not None:
            is_record = line.is_last and (line.text or not line.is_first)
            return _joined(line.text, record_end) if is_record else line.text
        knows_newline = self.vocabulary.units == "bytes" or "\n" in self.vocabulary.characters
        return _joined(line.text, "\n") if line.has_end and knows_newline else line.text

    def record(self, text: str | bytes) -> str | bytes:
        """Returns a text with one record end behind it, if the model is of records.

        The end of a record may stand behind `text` already.

        Raises:
            RecordError: a record ends inside `text`.
        """
        return _joined(one_record(text, self.settings), self.vocabulary.record_end or "")

    def require_known(self, text: str | bytes) -> None:
        """Makes sure that `text` can be scored.

        Raises:
            UnknownCharacterError: a character is unknown and is an error.
        """
        if self._unknown == "error":
            self._encoded(text)

    def warm_up(self, top_predictions: int = 0) -> None:
        """Compiles all that scoring takes, so that the first line does not wait for it."""
        nothing = np.zeros(1, np.int32)
        for batch_size in _CAPACITY:
            self._packed([nothing], batch_size)
        if top_predictions:
            Reading(self._network, min(top_predictions, self.vocabulary.size), self._check).read(nothing)

    def score(self, texts: Sequence[str | bytes]) -> list[Score]:
        """Returns the score of each of `texts`, which are read side by side.

        Raises:
            UnknownCharacterError: a character is unknown and is an error.
        """
        scores: list[Score] = []
        held: list[_Encoded] = []
        size = 0
        for text in texts:
            held.append(self._encoded(text))
            size += len(held[-1].token_ids) + len(self._prompt)
            if size > _TOGETHER:
                scores += self._together(held)
                held, size = [], 0
        return scores + self._together(held)

    def begin(self, top_predictions: int = 0) -> "TextReading":
        """Returns a text that is read on and on, with so many of the most likely tokens in each place."""
        reading = Reading(self._network, min(top_predictions, self.vocabulary.size), self._check)
        if len(self._prompt):
            reading.read(self._prompt)
        return TextReading(reading, self._encoded)

    def _together(self, held: Sequence[_Encoded]) -> list[Score]:
        skipped = len(self._prompt)
        # Of an empty text nothing is read.
        read = [np.concatenate([self._prompt, of.token_ids]) if len(of.token_ids) else of.token_ids for of in held]
        total = sum(map(len, read))
        time_steps = Packing.from_lengths([len(ids) for ids in read], _BATCH_SIZE).time_steps
        is_wide = total > _COST_OF_ALL_ROWS * (time_steps + self._shapes[_BATCH_SIZE].sequence_length)
        nats = self._packed(read, _BATCH_SIZE if is_wide else 1)
        return [Score(of.text, one[skipped:], of.unknown) for one, of in zip(nats, held, strict=True)]

    def _packed(self, texts: Sequence[Integer[np.ndarray, " _"]], batch_size: int) -> list[Float32[np.ndarray, " _"]]:
        packing = Packing.from_lengths([len(text) for text in texts], batch_size)
        carry = self._network.zero_carry(batch_size)
        parts = []
        _, capacity, sequence_length = self._shapes[batch_size]
        for block in packing.blocks(texts, capacity, sequence_length):
            (self._check or _go_on)()
            (nats, *_), carry = _read_block(
                self._network, block.token_ids, block.resets, block.steps, block.steps, carry, top_predictions=0
            )
            parts.append(np.asarray(nats)[: block.steps].reshape(-1, batch_size))
        by_row = np.concatenate(parts).T if parts else np.zeros((batch_size, 0), np.float32)
        found: list[Float32[np.ndarray, " _"]] = [np.zeros(0, np.float32)] * len(texts)
        for row, places in enumerate(packing.rows):
            begin = 0
            for place in places:
                end = begin + len(texts[place])
                found[place] = by_row[row, begin:end]
                begin = end
        return found

    def _encoded(self, text: str | bytes, position: int = 0) -> _Encoded:
        if isinstance(text, str):
            if self.vocabulary.units == "bytes":
                text = text.encode("utf-8", "surrogateescape")
            elif self.settings.lowercase:
                text = text.lower()
        try:
            return _Encoded(self.vocabulary.encode(text, position=position), text, 0)
        except UnknownCharacterError:
            if self._unknown == "error":
                raise
        assert isinstance(text, str)  # no byte is unknown
        unknowns = self.vocabulary.unknown_characters(text)
        ids = self.vocabulary.encode(text, self._unknown)
        if self._unknown == "skip":
            text = text.translate(dict.fromkeys(map(ord, set(unknowns))))
        self.unknown.update(unknowns)
        return _Encoded(ids, text, len(unknowns))


def _go_on() -> None:
    """Lets a reading go on."""


def _joined(text: str | bytes, end: str) -> str | bytes:
    return text + end if isinstance(text, str) else text + end.encode()


class TextReading:
    """A text that is read on and on, with the state carried from piece to piece."""

    def __init__(self, reading: Reading, encoded: Callable[[str | bytes, int], _Encoded]) -> None:
        self._reading = reading
        self._encoded = encoded
        self._position = 0

    def read(self, *pieces: str | bytes) -> list[Score]:
        """Returns the scores of the text's next pieces, which are read together.

        Raises:
            UnknownCharacterError: a character is unknown and is an error; nothing is read then.
        """
        if not pieces:
            return []
        encoded, position = [], self._position
        for piece in pieces:
            encoded.append(self._encoded(piece, position))
            position += len(piece)
        self._position = position
        token_ids = np.concatenate([of.token_ids for of in encoded])
        nats, top_predictions = self._reading.read(token_ids)
        ends = np.cumsum([len(of.token_ids) for of in encoded])[:-1]
        arrays = (np.split(array, ends) for array in (nats, *top_predictions))
        return [
            Score(of.text, one, of.unknown, TopPredictions(ids, log_probs) if ids.size else None)
            for of, one, ids, log_probs in zip(encoded, *arrays, strict=True)
        ]


@partial(compiled, static_argnames="top_predictions")
def _read_block(
    network: Network,
    token_ids: Int32[Array, "capacity batch sequence_plus_1"],
    resets: Bool[Array, "capacity batch sequence"],
    steps: Int32[Array, ""],
    whole: Int32[Array, ""],
    carry: Carry,
    *,
    top_predictions: int,
) -> tuple[
    tuple[
        Float[Array, "capacity sequence batch"],
        Int32[Array, "capacity sequence batch top_predictions"],
        Float[Array, "capacity sequence batch top_predictions"],
    ],
    Carry,
]:
    """Returns each prediction's cost, its top predictions, and the carry after the `whole` first sequences."""

    def sequence(index: Int32[Array, ""], state: tuple[tuple[Array, ...], Carry]) -> tuple[tuple[Array, ...], Carry]:
        found, carry = state
        ids = token_ids[index].T
        logits, after = network(ids[:-1], resets[index].T, carry)
        of_sequence = cross_entropy(logits, ids[1:]), *_best(logits, top_predictions)
        found = jax.tree.map(lambda all_, one: all_.at[index].set(one), found, of_sequence)
        return found, jax.tree.map(lambda new, old: jnp.where(index < whole, new, old), after, carry)

    capacity, batch_size, sequence_length = resets.shape
    shape = capacity, sequence_length, batch_size
    nothing = (
        jnp.zeros(shape, jnp.float32),
        jnp.zeros((*shape, top_predictions), jnp.int32),
        jnp.zeros((*shape, top_predictions), jnp.float32),
    )
    return lax.fori_loop(0, steps, sequence, (nothing, carry))


def _best(
    logits: Float[Array, "sequence batch vocab"], top_predictions: int
) -> tuple[Int32[Array, "sequence batch top_predictions"], Float[Array, "sequence batch top_predictions"]]:
    if top_predictions == 0:
        shape = (*logits.shape[:2], 0)
        return jnp.zeros(shape, jnp.int32), jnp.zeros(shape, jnp.float32)
    log_probs, ids = lax.top_k(jax.nn.log_softmax(logits), top_predictions)
    return ids, log_probs
