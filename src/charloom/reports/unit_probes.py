"""Interpretable units: units whose output follows a visible feature of the text, found by correlation.

Source: Karpathy, Johnson and Fei-Fei, 2015 (units that follow quotes, brackets and the position in a line).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

_EXCERPT_LENGTH = 600
_MIN_CORRELATION = 0.3
_PAIRS = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True)
class UnitProbe:
    """A unit and the feature that it follows.

    Attributes:
        feature: the feature's name.
        unit: the unit's index among all units.
        correlation: the correlation of its output with the feature over the text, between -1 and 1.
        first: where an excerpt starts in which the feature varies.
        last: where the excerpt ends.
    """

    feature: str
    unit: int
    correlation: float
    first: int
    last: int


def unit_probes(text: str, outputs: Float32[np.ndarray, "time units"]) -> list[UnitProbe]:
    """Returns, for each feature that varies in `text`, the unit that follows it best; the best unit first.

    Args:
        text: the text that the model read.
        outputs: the output of each unit after each character.
    """
    found = []
    centered = outputs - outputs.mean(axis=0)
    spread = np.sqrt((centered**2).sum(axis=0))
    for feature, values in features_of(text).items():
        deviation = values - values.mean()
        size = np.sqrt((deviation**2).sum())
        if size == 0:  # the feature does not vary in the text
            continue
        correlations = deviation.astype(np.float32) @ centered / np.maximum(size * spread, 1e-6)
        unit = int(np.abs(correlations).argmax())
        if abs(correlations[unit]) >= _MIN_CORRELATION:
            first = _most_varied_excerpt(deviation)
            last = min(first + _EXCERPT_LENGTH, len(text))
            found.append(UnitProbe(feature, unit, float(correlations[unit]), first, last))
    return sorted(found, key=lambda probe: -abs(probe.correlation))


def features_of(text: str) -> dict[str, Float[np.ndarray, " time"]]:
    """Returns the value of each feature after each character of `text`."""
    features: dict[str, Callable[[str], Iterator[float]]] = {
        "the position in a line": _position_in_line,
        "the position in a word": _position_in_word,
        "inside quotes": _inside_quotes,
        "inside brackets": _inside_brackets,
        "capitals": lambda text: (float(character.isupper()) for character in text),
        "digits": lambda text: (float(character.isdigit()) for character in text),
        "spaces": lambda text: (float(character == " ") for character in text),
    }
    return {name: np.fromiter(values(text), np.float64, len(text)) for name, values in features.items()}


def _position_in_line(text: str) -> Iterator[float]:
    position = 0
    for character in text:
        position = 0 if character == "\n" else position + 1
        yield float(min(position, 200))


def _position_in_word(text: str) -> Iterator[float]:
    position = 0
    for character in text:
        position = position + 1 if character.isalnum() else 0
        yield float(min(position, 30))


def _inside_quotes(text: str) -> Iterator[float]:
    inside, before = False, ""
    for character in text:
        if character == "“":
            inside = True
        elif character == "”":
            inside = False
        elif character == '"':
            inside = not inside
        elif character == before == "\n":  # a quote that is never closed ends with its paragraph
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


def _most_varied_excerpt(deviation: Float[np.ndarray, " time"]) -> int:
    """Returns the start of the excerpt in which a feature varies most."""
    if len(deviation) <= _EXCERPT_LENGTH:
        return 0
    sums = np.concatenate([[0.0], np.cumsum(deviation)])
    squares = np.concatenate([[0.0], np.cumsum(deviation**2)])
    length = _EXCERPT_LENGTH
    means = (sums[length:] - sums[:-length]) / length
    return int(((squares[length:] - squares[:-length]) / length - means**2).argmax())
