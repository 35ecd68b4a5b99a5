"""What comes next: the distribution of the next character, and the state to go on from."""

from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32

from charloom.arguments import whole_number
from charloom.errors import SettingError
from charloom.inference.generation import DecoderState, NativeDecoderState
from charloom.models import Network
from charloom.settings import MAX_COUNT


@dataclass(frozen=True)
class TextCarry:
    """The state of one model behind a text. It belongs to that model, and says nothing to another.

    Attributes:
        network: what read the text.
        stream: its state.
    """

    network: Network = field(repr=False)
    stream: DecoderState | NativeDecoderState = field(repr=False)

    def stream_of(self, network: Network) -> DecoderState | NativeDecoderState:
        """Returns the state, for `network` to go on from.

        Raises:
            SettingError: it is of another network. The same weights, loaded twice, are one network.
        """
        if network is not self.network and not _are_equal(network, self.network):
            raise SettingError("carry", "is of another model. Give the carry of a `next` of this one")
        return self.stream


def _are_equal(one: Network, other: Network) -> bool:
    structures: list[Any] = [jax.tree.structure(network) for network in (one, other)]
    if structures[0] != structures[1]:  # cells, vocabulary, and what a text begins after
        return False
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(np.asarray(ours), np.asarray(theirs)) for ours, theirs in leaves)


@dataclass(frozen=True)
class Next:
    """What a model expects behind a text that it has read.

    Attributes:
        log_probs: natural logarithms of the probabilities, in the order of the vocabulary; in float32.
        characters: what each of them is of; of bytes, Latin-1 characters of the same number.
        carry: the state, for the same model to go on from.
    """

    log_probs: Float32[np.ndarray, " vocab"]
    characters: str = field(repr=False)
    carry: TextCarry = field(repr=False)

    @property
    def probs(self) -> Float32[np.ndarray, " vocab"]:
        """The probabilities."""
        return np.exp(self.log_probs)

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """Returns the most likely characters with their probabilities, the likeliest first."""
        order = np.argsort(-self.log_probs, kind="stable")[: whole_number("count", count, 0, MAX_COUNT)]
        return [(self.characters[at], float(np.exp(self.log_probs[at]))) for at in order]


def prediction(network: Network, stream: DecoderState | NativeDecoderState, characters: str) -> Next:
    """Returns what `network` expects behind the text that `stream` has read."""
    logits = logits_of(stream)
    highest = logits.max()
    log_probs = logits - (highest + np.log(np.exp(logits - highest).sum()))
    return Next(log_probs, characters, TextCarry(network, stream))


def logits_of(stream: DecoderState | NativeDecoderState) -> Float32[np.ndarray, " vocab"]:
    """Returns the logits of the token behind what `stream` has read."""
    return np.asarray(stream.state.logits[0] if isinstance(stream, NativeDecoderState) else stream.logits, np.float32)


def state_vector(stream: DecoderState | NativeDecoderState) -> Float32[np.ndarray, " state"]:
    """Returns the outputs of all layers after what `stream` has read, the first layer's first."""
    if isinstance(stream, NativeDecoderState):
        return stream.state.hidden[:, 0].flatten()
    # An LSTM's carry begins with its output; the other cells' is nothing else.
    outputs = [jax.tree.leaves(carry)[0][0] for carry in stream.carry]
    return np.concatenate([np.asarray(output) for output in outputs])
