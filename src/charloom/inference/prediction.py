"""The distribution of the next character, and the state to continue from."""

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
    """The state of a model after a text. It is valid only for that model.

    Attributes:
        network: The network that read the text.
        state: Its state.
    """

    network: Network = field(repr=False)
    state: DecoderState | NativeDecoderState = field(repr=False)

    def state_for(self, network: Network) -> DecoderState | NativeDecoderState:
        """Returns the state, from which `network` continues.

        Raises:
            SettingError: The state belongs to another network. A network with equal weights counts as the same one.
        """
        if network is not self.network and not _are_equal(network, self.network):
            raise SettingError("carry", "belongs to another model. Give a carry that `next` of this model returned")
        return self.state


def _are_equal(one: Network, other: Network) -> bool:
    structures: list[Any] = [jax.tree.structure(network) for network in (one, other)]
    if structures[0] != structures[1]:  # cells, vocabulary size and start token
        return False
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(np.asarray(ours), np.asarray(theirs)) for ours, theirs in leaves)


@dataclass(frozen=True)
class Next:
    """The distribution of the next character after a text.

    Attributes:
        log_probs: Natural logarithms of the probabilities, by token id: float32, of shape `(vocab,)`.
        characters: The character of each token id. For a model of bytes, the Latin-1 character with the same number.
        carry: The state after the text. Give it to `TextModel.next` to continue from there.
    """

    log_probs: Float32[np.ndarray, " vocab"]
    characters: str = field(repr=False)
    carry: TextCarry = field(repr=False)

    @property
    def probs(self) -> Float32[np.ndarray, " vocab"]:
        """The probabilities, by token id: float32, of shape `(vocab,)`."""
        return np.exp(self.log_probs)

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """Returns the most likely characters with their probabilities, the most likely first.

        Args:
            count: Number of characters to return, 0 or more.

        Raises:
            SettingError: `count` is not a whole number from 0.
        """
        order = np.argsort(-self.log_probs, kind="stable")[: whole_number("count", count, 0, MAX_COUNT)]
        return [(self.characters[at], float(np.exp(self.log_probs[at]))) for at in order]


def prediction(network: Network, state: DecoderState | NativeDecoderState, characters: str) -> Next:
    """Returns the distribution of the next character after the text that `state` has read."""
    logits = logits_of(state)
    highest = logits.max()
    log_probs = logits - (highest + np.log(np.exp(logits - highest).sum()))
    return Next(log_probs, characters, TextCarry(network, state))


def logits_of(state: DecoderState | NativeDecoderState) -> Float32[np.ndarray, " vocab"]:
    """Returns the logits of the next token after what `state` has read."""
    return np.asarray(state.streams.logits[0] if isinstance(state, NativeDecoderState) else state.logits, np.float32)


def state_vector(state: DecoderState | NativeDecoderState) -> Float32[np.ndarray, " state"]:
    """Returns the outputs of all layers after what `state` has read, the first layer first."""
    if isinstance(state, NativeDecoderState):
        return state.streams.hidden[:, 0].flatten()
    # An LSTM's carry begins with its output. The carry of other cells is their output.
    outputs = [jax.tree.leaves(carry)[0][0] for carry in state.carry]
    return np.concatenate([np.asarray(output) for output in outputs])
