"""A batch of texts in generation, to which texts are added and from which they are removed between two characters.

Each text is independent of the other batch rows. Native products do not depend on the batch, and the reference
implementation generates the texts one after another.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, UInt32

from charloom.inference.generation import DecoderState, NativeDecoderState, generate_block
from charloom.inference.sampling import SamplingRule, native_samplers, seed_words
from charloom.kernels import SAMPLER_RECORD, Begun, Generator, GeneratorState, Refill
from charloom.models import Network
from charloom.settings import SamplingSettings

NONE_BEGUN = Begun(*np.zeros((2, 0), np.int32))


class WaitingTexts(NamedTuple):
    """Texts that begin in the slots of texts that end, with the same seed and settings.

    Attributes:
        state: the state that they continue.
        stream_indexes: their stream indexes, in their order.
        length: maximum number of tokens of a text.
        end_id: the token that ends a text and is not part of it; None if there is none.
    """

    state: DecoderState | NativeDecoderState
    stream_indexes: Sequence[int]
    length: int
    end_id: int | None


_BLOCK_SIZE = 256
"""Tokens per text and call of `generate_tokens`."""


class DecodingBatch(ABC):
    """A batch of texts in generation. Each has a slot, counted from 0.

    Attributes:
        USEFUL_TEXTS: how many texts to generate at once. More are not faster.
        CALL_SECONDS: roughly what a call of `generate` costs in addition to its steps.
    """

    USEFUL_TEXTS: ClassVar[int]
    CALL_SECONDS: ClassVar[float]

    @staticmethod
    def for_state(network: Network, state: DecoderState | NativeDecoderState) -> "DecodingBatch":
        """Returns an empty batch for texts that continue states like `state`, which `network` has read."""
        if isinstance(state, NativeDecoderState):
            return NativeDecodingBatch(state.generator)
        return ReferenceDecodingBatch(network)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def add(
        self,
        state: DecoderState | NativeDecoderState,
        settings: SamplingSettings,
        seed: int,
        stream_indexes: Sequence[int],
        position: int = 0,
    ) -> None:
        """Adds texts that continue `state`, in new slots after the last one. `state` itself does not change.

        Args:
            state: the state after the prompt.
            settings: the sampling settings.
            seed: seed of the sampler.
            stream_indexes: one index per text, which distinguishes texts with the same seed.
            position: position of the next token among the tokens generated with this seed and index.
        """

    @abstractmethod
    def remove(self, slot: int) -> None:
        """Removes the text in `slot`. The last text takes its slot."""

    @abstractmethod
    def state(self, slot: int) -> DecoderState | NativeDecoderState:
        """Returns a copy of the state of a text."""

    @abstractmethod
    def logits(self, slot: int) -> Float32[np.ndarray, " vocab"]:
        """Returns the logits of a text's next token. The next `generate` may change the array."""

    @abstractmethod
    def generate(self, steps: int, slots: slice = slice(None)) -> Int32[np.ndarray, "texts steps"]:
        """Returns the next `steps` tokens of the texts in `slots`, by default of all texts.

        After an exception, these texts cannot continue until they are restored.
        """

    def generate_refilled(self, steps: int, waiting: WaitingTexts) -> tuple[Int32[np.ndarray, "texts steps"], Begun]:
        """Returns the next `steps` tokens of all slots, and which of the waiting texts have begun in them.

        In the native generator, waiting texts begin in the slots of texts that end, whose end token is then left out.
        Elsewhere none does.
        """
        return self.generate(steps), NONE_BEGUN

    @abstractmethod
    def save(self, slots: slice) -> None:
        """Saves the texts in `slots` as they are now, for `restore`."""

    @abstractmethod
    def restore(self, slots: slice) -> None:
        """Restores the texts in `slots` as they were saved. None of them may have been removed in between."""

    @abstractmethod
    def clear(self) -> None:
        """Removes all texts. It allocates nothing, so it works even if memory has run out."""


class NativeDecodingBatch(DecodingBatch):
    """A batch of the native generator."""

    # From 64 texts on, the products are as fast as they get. Twice as many halve the share of what a call costs.
    USEFUL_TEXTS = 128
    CALL_SECONDS = 60e-6

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self._count = 0
        self._streams = generator.begin(1)
        self._samplers = np.zeros(1, SAMPLER_RECORD)
        self._saved = self._like(1)

    @property
    def _arrays(self) -> tuple[np.ndarray, ...]:
        """All arrays of the batch, with the texts as the first axis."""
        return *_text_major(self._streams), self._samplers

    def _like(self, capacity: int) -> tuple[np.ndarray, ...]:
        """Returns arrays like `_arrays` for `capacity` texts."""
        return tuple(np.zeros((capacity, *array.shape[1:]), array.dtype) for array in self._arrays)

    def __len__(self) -> int:
        return self._count

    def add(
        self,
        state: DecoderState | NativeDecoderState,
        settings: SamplingSettings,
        seed: int,
        stream_indexes: Sequence[int],
        position: int = 0,
    ) -> None:
        if not isinstance(state, NativeDecoderState) or state.generator is not self._generator:
            raise ValueError("the state belongs to another network")
        first, end = self._count, self._count + len(stream_indexes)
        capacity = len(self._samplers)
        while capacity < end:
            capacity *= 2
        if capacity > len(self._samplers):
            self._resize(capacity)
        for ours, theirs in zip(_text_major(self._streams), _text_major(state.streams), strict=True):
            ours[first:end] = theirs[0]
        self._samplers[first:end] = native_samplers(settings, seed, stream_indexes, position)
        self._count = end

    def remove(self, slot: int) -> None:
        last = self._count - 1
        if slot != last:
            for array in self._arrays:
                array[slot] = array[last]
        self._count = last
        if len(self._samplers) > 1 and 4 * self._count <= len(self._samplers):
            with suppress(MemoryError):  # shrinking the arrays allocates new ones
                self._resize(len(self._samplers) // 2)

    def state(self, slot: int) -> NativeDecoderState:
        streams = (array[..., slot : slot + 1, :].copy() for array in self._streams)
        return NativeDecoderState(self._generator, GeneratorState(*streams))

    def logits(self, slot: int) -> Float32[np.ndarray, " vocab"]:
        return self._streams.logits[slot]

    def generate(self, steps: int, slots: slice = slice(None)) -> Int32[np.ndarray, "texts steps"]:
        first, end, _ = slots.indices(self._count)
        samplers = self._samplers[first:end]
        tokens = np.full((len(samplers), steps), -1, np.int32)
        self._generator.run(GeneratorState(*(array[..., first:, :] for array in self._streams)), tokens, samplers)
        samplers["position"] += np.uint32(steps)
        return tokens

    def generate_refilled(self, steps: int, waiting: WaitingTexts) -> tuple[Int32[np.ndarray, "texts steps"], Begun]:
        if not isinstance(waiting.state, NativeDecoderState):
            raise ValueError("the state belongs to another network")
        samplers = self._samplers[: self._count]
        tokens = np.full((self._count, steps), -1, np.int32)
        streams = np.array(waiting.stream_indexes, np.uint32)
        end_token = -1 if waiting.end_id is None else waiting.end_id
        refill = Refill(waiting.state.streams, streams, waiting.length, end_token)
        begun = self._generator.run(self._streams, tokens, samplers, refill)
        samplers["position"] += np.uint32(steps)
        samplers["stream"][begun.places] = streams[: len(begun.places)]  # the last one of each slot stays
        samplers["position"][begun.places] = steps - begun.steps
        return tokens, begun

    def save(self, slots: slice) -> None:
        first, end, _ = slots.indices(self._count)
        for array, saved in zip(self._arrays, self._saved, strict=True):
            saved[first:end] = array[first:end]

    def restore(self, slots: slice) -> None:
        first, end, _ = slots.indices(self._count)
        for array, saved in zip(self._arrays, self._saved, strict=True):
            array[first:end] = saved[first:end]

    def clear(self) -> None:
        self._count = 0

    def _resize(self, capacity: int) -> None:
        streams = self._generator.begin(capacity)
        samplers, saved = np.zeros(capacity, SAMPLER_RECORD), self._like(capacity)
        for new, old in zip((*_text_major(streams), samplers), self._arrays, strict=True):
            new[: self._count] = old[: self._count]
        self._streams, self._samplers, self._saved = streams, samplers, saved


def _text_major(streams: GeneratorState) -> tuple[np.ndarray, ...]:
    """Returns views of the arrays with the texts as the first axis."""
    return streams.hidden.swapaxes(0, 1), streams.cells.swapaxes(0, 1), streams.logits


@dataclass
class _Text:
    state: DecoderState
    rule: SamplingRule
    seed_words: UInt32[np.ndarray, "2"]
    stream_index: int
    position: int
    saved: tuple[DecoderState, int]


class ReferenceDecodingBatch(DecodingBatch):
    """A batch whose texts are generated one after another."""

    USEFUL_TEXTS = 1
    CALL_SECONDS = 200e-6

    def __init__(self, network: Network) -> None:
        self._network = network
        self._texts: list[_Text] = []

    def __len__(self) -> int:
        return len(self._texts)

    def add(
        self,
        state: DecoderState | NativeDecoderState,
        settings: SamplingSettings,
        seed: int,
        stream_indexes: Sequence[int],
        position: int = 0,
    ) -> None:
        if not isinstance(state, DecoderState) or state.logits.shape != (self._network.vocab_size,):
            raise ValueError("the state belongs to another network")
        rule, words = SamplingRule.of(settings), seed_words(seed)
        self._texts += [_Text(state, rule, words, index, position, (state, position)) for index in stream_indexes]

    def remove(self, slot: int) -> None:
        self._texts[slot] = self._texts[-1]
        self._texts.pop()

    def state(self, slot: int) -> DecoderState:
        return self._texts[slot].state

    def logits(self, slot: int) -> Float32[np.ndarray, " vocab"]:
        return np.asarray(self._texts[slot].state.logits)

    def generate(self, steps: int, slots: slice = slice(None)) -> Int32[np.ndarray, "texts steps"]:
        return np.stack([self._generated(text, steps) for text in self._texts[slots]])

    def save(self, slots: slice) -> None:
        for text in self._texts[slots]:
            text.saved = text.state, text.position  # a state is never changed in place

    def restore(self, slots: slice) -> None:
        for text in self._texts[slots]:
            text.state, text.position = text.saved

    def clear(self) -> None:
        self._texts.clear()

    def _generated(self, text: _Text, steps: int) -> Int32[np.ndarray, " steps"]:
        blocks = []
        while steps > 0:
            tokens, text.state = generate_block(
                self._network, text.state, text.rule, text.seed_words, text.stream_index, text.position, steps
            )
            blocks.append(tokens)
            text.position += len(tokens)
            steps -= len(tokens)
        return np.concatenate(blocks)


def generate_tokens(
    network: Network,
    state: DecoderState | NativeDecoderState,
    length: int,
    settings: SamplingSettings,
    seed: int,
    stream_indexes: Sequence[int],
) -> Iterator[Int32[np.ndarray, "texts block"]]:
    """Yields the next `length` token ids of texts that continue `state`, in parallel, block by block.

    Args:
        network: the network that has read `state`.
        state: the common state of the texts; it does not change.
        length: number of tokens per text.
        settings: the sampling settings.
        seed: seed of the sampler. A text's random numbers depend only on it, the stream index and the position.
        stream_indexes: one index per text. A text does not depend on which other indexes are generated with it.
    """
    batch = DecodingBatch.for_state(network, state)
    batch.add(state, settings, seed, stream_indexes)
    while length > 0:
        block = batch.generate(min(_BLOCK_SIZE, length))
        yield block
        length -= block.shape[1]
