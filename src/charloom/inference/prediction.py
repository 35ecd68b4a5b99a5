"""What comes next: the distribution of the next character, and the state to go on from."""

from dataclasses import dataclass, field

import jax
import numpy as np
from jaxtyping import Float32

from charloom.inference.generation import NativeStream, Stream


@dataclass(frozen=True)
class Next:
    """What a model expects behind a text that it has read.

    Attributes:
        log_probs: natural logarithms of the probabilities, in the order of the vocabulary; in float32.
        characters: what each of them is of; of bytes, Latin-1 characters of the same number.
        carry: the state, to go on from.
    """

    log_probs: Float32[np.ndarray, " vocab"]
    characters: str = field(repr=False)
    carry: Stream | NativeStream = field(repr=False)

    @property
    def probs(self) -> Float32[np.ndarray, " vocab"]:
        """The probabilities."""
        return np.exp(self.log_probs)

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """Returns the most likely characters with their probabilities, the likeliest first."""
        order = np.argsort(-self.log_probs, kind="stable")[:count]
        return [(self.characters[at], float(np.exp(self.log_probs[at]))) for at in order]


def prediction(stream: Stream | NativeStream, characters: str) -> Next:
    """Returns what `stream`, which has read a text, expects behind it."""
    logits = logits_of(stream)
    highest = logits.max()
    return Next(logits - (highest + np.log(np.exp(logits - highest).sum())), characters, stream)


def logits_of(stream: Stream | NativeStream) -> Float32[np.ndarray, " vocab"]:
    """Returns the logits of the token behind what `stream` has read."""
    return np.asarray(stream.state.logits[0] if isinstance(stream, NativeStream) else stream.logits, np.float32)


def state_vector(stream: Stream | NativeStream) -> Float32[np.ndarray, " state"]:
    """Returns the outputs of all layers after what `stream` has read, the first layer's first."""
    if isinstance(stream, NativeStream):
        return stream.state.hidden[:, 0].flatten()
    # An LSTM's carry begins with its output; the other cells' is nothing else.
    outputs = [jax.tree.leaves(carry)[0][0] for carry in stream.carry]
    return np.concatenate([np.asarray(output) for output in outputs])
