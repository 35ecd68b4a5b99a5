"""Telling units: those whose output follows something that a reader sees in a text, found by correlation.

Source: Karpathy, Johnson and Fei-Fei, 2015 (units that follow quotes, brackets and the place in a line).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

_EXCERPT = 600
_LEAST_CORRELATION = 0.3
_PAIRS = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True)
class UnitProbe:
    """A unit and what it follows.

    Attributes:
        feature: what it follows, in words.
        unit: its place among all units.
        correlation: of its output with the feature over the text, between -1 and 1.
        first: where an excerpt begins in which the feature comes and goes.
        last: where that ends.
    """

    feature: str
    unit: int
    correlation: float
    first: int
    last: int


def unit_probes(text: str, outputs: Float32[np.ndarray, "time units"]) -> list[UnitProbe]:
    """Returns for each feature that comes and goes in `text` the unit that follows it best, the best first.

    Args:
        text: what was read.
        outputs: of each unit after each character.
    """
    found = []
    centered = outputs - outputs.mean(axis=0)
    spread = np.sqrt((centered**2).sum(axis=0))
    for feature, values in features_of(text).items():
        deviation = values - values.mean()
        size = np.sqrt((deviation**2).sum())
        if size == 0:  # nothing of the kind is in the text
            continue
        correlations = deviation.astype(np.float32) @ centered / np.maximum(size * spread, 1e-6)
        unit = int(np.abs(correlations).argmax())
        if abs(correlations[unit]) >= _LEAST_CORRELATION:
            first = _liveliest(deviation)
            last = min(first + _EXCERPT, len(text))
            found.append(UnitProbe(feature, unit, float(correlations[unit]), first, last))
    return sorted(found, key=lambda one: -abs(one.correlation))


def features_of(text: str) -> dict[str, Float[np.ndarray, " time"]]:
    """Returns what a reader sees after each character of `text`, as numbers."""
    followers: dict[str, Callable[[str], Iterator[float]]] = {
        "the place in a line": _place_in_line,
        "the place in a word": _place_in_word,
        "inside quotes": _inside_quotes,
        "inside brackets": _inside_brackets,
        "capitals": lambda text: (float(character.isupper()) for character in text),
        "digits": lambda text: (float(character.isdigit()) for character in text),
        "spaces": lambda text: (float(character == " ") for character in text),
    }
    return {name: np.fromiter(follow(text), np.float64, len(text)) for name, follow in followers.items()}


def _place_in_line(text: str) -> Iterator[float]:
    place = 0
    for character in text:
        place = 0 if character == "\n" else place + 1
        yield float(min(place, 200))


def _place_in_word(text: str) -> Iterator[float]:
    place = 0
    for character in text:
        place = place + 1 if character.isalnum() else 0
        yield float(min(place, 30))


def _inside_quotes(text: str) -> Iterator[float]:
    inside, before = False, ""
    for character in text:
        if character == "“":
            inside = True
        elif character == "”":
            inside = False
        elif character == '"':
            inside = not inside
        elif character == before == "\n":  # a mark that was never closed ends with its paragraph
            inside = False
        before = character
        yield float(inside)


def _inside_brackets(text: str) -> Iterator[float]:
    expected: list[str] = []
    before = ""
    for character in text:
        if character in _PAIRS:
            expected.append(_PAIRS[character])
        elif expected and character == expected[-1]:
            expected.pop()
        elif character == before == "\n":
            expected = []
        before = character
        yield float(bool(expected))


def _liveliest(deviation: Float[np.ndarray, " time"]) -> int:
    """Returns where an excerpt begins in which a feature varies most."""
    if len(deviation) <= _EXCERPT:
        return 0
    sums = np.concatenate([[0.0], np.cumsum(deviation)])
    squares = np.concatenate([[0.0], np.cumsum(deviation**2)])
    means = (sums[_EXCERPT:] - sums[:-_EXCERPT]) / _EXCERPT
    return int(((squares[_EXCERPT:] - squares[:-_EXCERPT]) / _EXCERPT - means**2).argmax())
