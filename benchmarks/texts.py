"""The random texts that every program gets. They cost as much as real ones."""

from typing import NamedTuple

import numpy as np

NEWLINE = 0
"""The id of the character that ends a line, and that a model reads before the first one."""
_SHORTEST, _LONGEST = 20, 150
_BATCH_ROWS = 128


class LineBatch(NamedTuple):
    """Lines of similar lengths, time first.

    Attributes:
        inputs: the characters that are read.
        targets: the characters that follow them.
        scored: 1 where a target belongs to a line, 0 after its end.
    """

    inputs: np.ndarray
    targets: np.ndarray
    scored: np.ndarray


def random_ids(count: int, vocabulary: int) -> np.ndarray:
    """Returns a text of `count` random ids, the same each time."""
    return np.random.default_rng(0).integers(0, vocabulary, count).astype(np.int32)


def random_lines(count: int, vocabulary: int) -> list[np.ndarray]:
    """Returns lines of different lengths, the same each time. Each ends with a newline."""
    rng = np.random.default_rng(1)
    lengths = rng.integers(_SHORTEST, _LONGEST + 1, count)
    return [np.append(rng.integers(1, vocabulary, length), NEWLINE).astype(np.int32) for length in lengths]


def line_batches(lines: list[np.ndarray]) -> list[LineBatch]:
    """Returns the lines in batches, sorted by length, so that little is padded.

    >>> [batch] = line_batches([np.array([1, 2, 0]), np.array([3, 0])])
    >>> batch.inputs.T.tolist(), batch.targets.T.tolist()
    ([[0, 3, 0], [0, 1, 2]], [[3, 0, 0], [1, 2, 0]])
    >>> batch.scored.T.tolist()
    [[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]
    """
    ordered = sorted(lines, key=len)
    return [_batch(ordered[first : first + _BATCH_ROWS]) for first in range(0, len(ordered), _BATCH_ROWS)]


def _batch(lines: list[np.ndarray]) -> LineBatch:
    targets = np.full((len(lines[-1]), len(lines)), NEWLINE, np.int32)
    scored = np.zeros(targets.shape, np.float32)
    for row, line in enumerate(lines):
        targets[: len(line), row] = line
        scored[: len(line), row] = 1
    return LineBatch(np.vstack([np.full((1, len(lines)), NEWLINE, np.int32), targets[:-1]]), targets, scored)
