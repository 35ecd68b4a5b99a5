"""Texts that are written side by side, and that come and go between two characters.

Each is what it would be alone: native products do not depend on company, and the reference writes one by one.
"""

from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32, UInt32

from charloom.inference.generation import DecoderState, NativeDecoderState, write_block
from charloom.inference.sampling import SamplingRule, native_writers, seed_words
from charloom.kernels import SAMPLER_RECORD, Generator, GeneratorState
from charloom.models import Network
from charloom.settings import SamplingSettings


class DecodingBatch(ABC):
    """Texts between two characters, in places from 0 on."""

    @staticmethod
    def after(network: Network, stream: DecoderState | NativeDecoderState) -> "DecodingBatch":
        """Returns what writes texts that go on from streams like `stream`, which `network` has read; none so far."""
        return NativeTexts(stream.generator) if isinstance(stream, NativeDecoderState) else ReferenceTexts(network)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def join(
        self,
        stream: DecoderState | NativeDecoderState,
        settings: SamplingSettings,
        seed: int,
        stream_index: int,
        position: int = 0,
    ) -> None:
        """Takes in a text that goes on from `stream`, which stays as it is; its place is the last.

        Args:
            stream: where the text goes on.
            settings: how its tokens are chosen.
            seed: of the choices.
            stream_index: tells texts of one seed apart.
            position: of its next token, in what is written with this seed and index.
        """

    @abstractmethod
    def leave(self, place: int) -> None:
        """Gives up the text in a place, which the last one then takes."""

    @abstractmethod
    def stream(self, place: int) -> DecoderState | NativeDecoderState:
        """Returns where a text goes on now."""

    @abstractmethod
    def logits(self, place: int) -> Float32[np.ndarray, " vocab"]:
        """Returns the logits of a text's next token; they may change with the next `write`."""

    @abstractmethod
    def write(self, steps: int, places: slice = slice(None)) -> Int32[np.ndarray, "texts steps"]:
        """Returns the next tokens of the texts in some places, by default of all, which have then read them.

        If it raises, these texts are in no state to continue from until they are restored.
        """

    @abstractmethod
    def save(self, places: slice) -> None:
        """Remembers the texts in some places as they are now, for `restore`."""

    @abstractmethod
    def restore(self, places: slice) -> None:
        """Puts the texts in some places, of which none has left, back to where they were when they were saved."""

    @abstractmethod
    def clear(self) -> None:
        """Gives up all texts. Allocates nothing, so that it works when memory has run out."""


class NativeTexts(DecodingBatch):
    """Texts in one batch of the native generator."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self._count = 0
        self._state = generator.begin(1)
        self._writers = np.zeros(1, SAMPLER_RECORD)
        self._saved = self._like(1)

    @property
    def _arrays(self) -> tuple[np.ndarray, ...]:
        """All that there is of the texts, with them as the first axis."""
        return *_by_text(self._state), self._writers

    def _like(self, room: int) -> tuple[np.ndarray, ...]:
        """Returns arrays like `_arrays` with room for so many texts."""
        return tuple(np.zeros((room, *array.shape[1:]), array.dtype) for array in self._arrays)

    def __len__(self) -> int:
        return self._count

    def join(
        self,
        stream: DecoderState | NativeDecoderState,
        settings: SamplingSettings,
        seed: int,
        stream_index: int,
        position: int = 0,
    ) -> None:
        if not isinstance(stream, NativeDecoderState) or stream.generator is not self._generator:
            raise ValueError("the stream was read by another network")
        if self._count == len(self._writers):
            self._resize(2 * self._count)
        place = self._count
        for ours, theirs in zip(_by_text(self._state), _by_text(stream.state), strict=True):
            ours[place] = theirs[0]
        self._writers[place] = native_writers(settings, seed, [stream_index], position)[0]
        self._count += 1

    def leave(self, place: int) -> None:
        last = self._count - 1
        if place != last:
            for array in self._arrays:
                array[place] = array[last]
        self._count = last
        if len(self._writers) > 1 and 4 * self._count <= len(self._writers):
            with suppress(MemoryError):  # to make the arrays smaller takes new ones
                self._resize(len(self._writers) // 2)

    def stream(self, place: int) -> NativeDecoderState:
        state = (array[..., place : place + 1, :].copy() for array in self._state)
        return NativeDecoderState(self._generator, GeneratorState(*state))

    def logits(self, place: int) -> Float32[np.ndarray, " vocab"]:
        return self._state.logits[place]

    def write(self, steps: int, places: slice = slice(None)) -> Int32[np.ndarray, "texts steps"]:
        first, end, _ = places.indices(self._count)
        writers = self._writers[first:end]
        tokens = np.full((len(writers), steps), -1, np.int32)
        self._generator.run(GeneratorState(*(array[..., first:, :] for array in self._state)), tokens, writers)
        writers["position"] += np.uint32(steps)
        return tokens

    def save(self, places: slice) -> None:
        first, end, _ = places.indices(self._count)
        for array, saved in zip(self._arrays, self._saved, strict=True):
            saved[first:end] = array[first:end]

    def restore(self, places: slice) -> None:
        first, end, _ = places.indices(self._count)
        for array, saved in zip(self._arrays, self._saved, strict=True):
            array[first:end] = saved[first:end]

    def clear(self) -> None:
        self._count = 0

    def _resize(self, room: int) -> None:
        state, writers, saved = self._generator.begin(room), np.zeros(room, SAMPLER_RECORD), self._like(room)
        for new, old in zip((*_by_text(state), writers), self._arrays, strict=True):
            new[: self._count] = old[: self._count]
        self._state, self._writers, self._saved = state, writers, saved


def _by_text(state: GeneratorState) -> tuple[np.ndarray, ...]:
    """Returns views of the arrays with the texts as the first axis."""
    return state.hidden.swapaxes(0, 1), state.cells.swapaxes(0, 1), state.logits


@dataclass
class _Text:
    stream: DecoderState
    rule: SamplingRule
    seed_words: UInt32[np.ndarray, "2"]
    stream_index: int
    position: int
    saved: tuple[DecoderState, int]


class ReferenceTexts(DecodingBatch):
    """Texts that are written one after the other."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._texts: list[_Text] = []

    def __len__(self) -> int:
        return len(self._texts)

    def join(
        self,
        stream: DecoderState | NativeDecoderState,
        settings: SamplingSettings,
        seed: int,
        stream_index: int,
        position: int = 0,
    ) -> None:
        if not isinstance(stream, DecoderState) or stream.logits.shape != (self._network.vocab_size,):
            raise ValueError("the stream was read by another network")
        rule, words = SamplingRule.of(settings), seed_words(seed)
        self._texts.append(_Text(stream, rule, words, stream_index, position, (stream, position)))

    def leave(self, place: int) -> None:
        self._texts[place] = self._texts[-1]
        self._texts.pop()

    def stream(self, place: int) -> DecoderState:
        return self._texts[place].stream

    def logits(self, place: int) -> Float32[np.ndarray, " vocab"]:
        return np.asarray(self._texts[place].stream.logits)

    def write(self, steps: int, places: slice = slice(None)) -> Int32[np.ndarray, "texts steps"]:
        return np.stack([self._written(text, steps) for text in self._texts[places]])

    def save(self, places: slice) -> None:
        for text in self._texts[places]:
            text.saved = text.stream, text.position  # a stream is never changed in place

    def restore(self, places: slice) -> None:
        for text in self._texts[places]:
            text.stream, text.position = text.saved

    def clear(self) -> None:
        self._texts.clear()

    def _written(self, text: _Text, steps: int) -> Int32[np.ndarray, " steps"]:
        blocks = []
        while steps > 0:
            tokens, text.stream = write_block(
                self._network, text.stream, text.rule, text.seed_words, text.stream_index, text.position, steps
            )
            blocks.append(tokens)
            text.position += len(tokens)
            steps -= len(tokens)
        return np.concatenate(blocks)
