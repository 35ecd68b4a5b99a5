"""The score of a text: how many nats each of its characters costs a model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32

from charloom.units import bits_from_nats, perplexity_from_nats

PEAK = 3
"""Number of most surprising characters whose mean is a text's peak."""
UNKNOWN_NATS = math.log(0x110000 - 0x800)
"""Nats of an unknown character: it could be any Unicode character."""


class TopPredictions(NamedTuple):
    """The most likely tokens at each position, the most likely first.

    Attributes:
        token_ids: their ids.
        log_probs: natural logarithms of their probabilities.
    """

    token_ids: Int32[np.ndarray, "characters top_predictions"]
    log_probs: Float32[np.ndarray, "characters top_predictions"]


@dataclass(frozen=True)
class Score:
    """The score of a text under a model, character by character.

    Attributes:
        text: the scored characters (or bytes), one for each number in `nats`.
        nats: negative log-probability of each character, given those before it.
        unknown: number of characters that the model does not know and that were skipped or replaced.
        top_predictions: the most likely tokens at each position; None unless requested.
    """

    text: str | bytes
    nats: Float32[np.ndarray, " characters"]
    unknown: int = 0
    top_predictions: TopPredictions | None = None

    @property
    def characters(self) -> int:
        """Number of scored characters."""
        return len(self.nats)

    @property
    def total_nats(self) -> float:
        """Sum of the nats, computed in float64."""
        return float(self.nats.sum(dtype=np.float64))

    @property
    def nats_per_char(self) -> float:
        """Mean in nats; NaN if nothing was scored."""
        return self.total_nats / self.characters if self.characters else math.nan

    @property
    def bits_per_char(self) -> float:
        """Mean in bits; NaN if nothing was scored."""
        return bits_from_nats(self.nats_per_char)

    @property
    def perplexity_per_char(self) -> float:
        """Number of equally likely characters that would be as hard to predict."""
        return perplexity_from_nats(self.nats_per_char)

    @property
    def highest(self) -> Float32[np.ndarray, " peak"]:
        """Nats of the `PEAK` most surprising characters, or of all if there are fewer."""
        return np.partition(self.nats, -PEAK)[-PEAK:] if self.characters > PEAK else self.nats

    @property
    def peak_bits(self) -> float:
        """Mean of the `PEAK` most surprising characters in bits; see `peak_bits`.

        It shows a surprise in one place, which the mean of a long text hides.
        """
        return peak_bits(self.highest.tolist(), self.unknown)

    @property
    def bits(self) -> Float32[np.ndarray, " characters"]:
        """Bits of each character."""
        return self.nats / np.float32(math.log(2))


def peak_bits(highest: Sequence[float], unknown: int) -> float:
    """Returns the mean of a text's `PEAK` most surprising characters in bits; NaN if it has none.

    Args:
        highest: nats of the most surprising characters that were scored.
        unknown: number of unknown characters, which cost `UNKNOWN_NATS` each, whatever was scored in their place.
    """
    nats = sorted([*highest, *[UNKNOWN_NATS] * min(unknown, PEAK)])[-PEAK:]
    return bits_from_nats(math.fsum(nats) / len(nats)) if nats else math.nan
