"""A block: what one compiled call consumes, whoever produced it."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int32, Integer


@dataclass(frozen=True)
class Block:
    """Consecutive sequences of some rows, in NumPy arrays of a fixed capacity.

    Attributes:
        token_ids: step t of a sequence reads entry t and predicts entry t + 1.
        resets: where True a text begins at the step: the state is zeroed, and the start input
            stands in for entry t.
        scored: where True the step's prediction counts.
        cold: where True the row's state is zeroed before the sequence, and nothing else: its first step reads
            the token given, as if in the middle of a text.
        steps: how many of the leading sequences are filled; the rest is left alone.
    """

    token_ids: Int32[np.ndarray, "capacity batch sequence_plus_1"]
    resets: Bool[np.ndarray, "capacity batch sequence"]
    scored: Bool[np.ndarray, "capacity batch sequence"]
    cold: Bool[np.ndarray, "capacity batch"]
    steps: int

    @classmethod
    def empty(cls, capacity: int, batch_size: int, sequence_length: int, steps: int) -> "Block":
        """Returns a block of zeros to be filled in: no resets, nothing scored, nothing cold."""
        return cls(
            token_ids=np.zeros((capacity, batch_size, sequence_length + 1), dtype=np.int32),
            resets=np.zeros((capacity, batch_size, sequence_length), dtype=bool),
            scored=np.zeros((capacity, batch_size, sequence_length), dtype=bool),
            cold=np.zeros((capacity, batch_size), dtype=bool),
            steps=steps,
        )

    def fill_row(
        self,
        row: int,
        token_ids: Integer[np.ndarray, " steps_plus_1"],
        resets: Bool[np.ndarray, " steps"],
        scored: Bool[np.ndarray, " steps"] | bool = True,
    ) -> None:
        """Lays a row's consecutive steps out over the filled sequences; neighbors share an id."""
        sequence_length = self.resets.shape[2]
        shape = (self.steps, sequence_length)
        self.token_ids[: self.steps, row, :-1] = token_ids[:-1].reshape(shape)
        self.token_ids[: self.steps, row, -1] = token_ids[sequence_length::sequence_length]
        self.resets[: self.steps, row] = resets.reshape(shape)
        self.scored[: self.steps, row] = np.broadcast_to(scored, resets.shape).reshape(shape)

    @property
    def batch_size(self) -> int:
        """How many rows are read side by side."""
        return self.resets.shape[1]

    @property
    def sequence_length(self) -> int:
        """Steps of a sequence."""
        return self.resets.shape[2]

    @property
    def characters(self) -> int:
        """How many predictions count."""
        return int(self.scored[: self.steps].sum())


@runtime_checkable
class BlockProducer(Protocol):
    """What training reads from: its cursor is the number of steps made, a Python int."""

    @property
    def batch_size(self) -> int: ...

    @property
    def sequence_length(self) -> int: ...

    def block(self, first_step: int, steps: int, capacity: int) -> Block:
        """Returns the block of `steps` steps from `first_step` on."""
        ...
