"""A block: the input of one compiled call."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int32, Integer


@dataclass(frozen=True)
class Block:
    """Consecutive sequences of each batch row, in NumPy arrays of a fixed capacity.

    Attributes:
        token_ids: time step t of a sequence reads entry t and predicts entry t + 1.
        resets: where True, a text begins at the time step: the state is zeroed, and the start input replaces entry t.
        scored: where True, the prediction of the time step is scored.
        state_resets: where True, only the row's state is zeroed before the sequence. The first time step still reads
            the given token, as in the middle of a text.
        steps: how many of the first sequences are filled; the others are ignored.
    """

    token_ids: Int32[np.ndarray, "capacity batch sequence_plus_1"]
    resets: Bool[np.ndarray, "capacity batch sequence"]
    scored: Bool[np.ndarray, "capacity batch sequence"]
    state_resets: Bool[np.ndarray, "capacity batch"]
    steps: int

    @classmethod
    def empty(cls, capacity: int, batch_size: int, sequence_length: int, steps: int) -> "Block":
        """Returns a block of zeros to be filled in, without resets or scored predictions."""
        return cls(
            token_ids=np.zeros((capacity, batch_size, sequence_length + 1), dtype=np.int32),
            resets=np.zeros((capacity, batch_size, sequence_length), dtype=bool),
            scored=np.zeros((capacity, batch_size, sequence_length), dtype=bool),
            state_resets=np.zeros((capacity, batch_size), dtype=bool),
            steps=steps,
        )

    def fill_row(
        self,
        row: int,
        token_ids: Integer[np.ndarray, " steps_plus_1"],
        resets: Bool[np.ndarray, " steps"],
        scored: Bool[np.ndarray, " steps"] | bool = True,
    ) -> None:
        """Writes a row's consecutive time steps into the filled sequences. Neighboring sequences share one id."""
        sequence_length = self.resets.shape[2]
        shape = (self.steps, sequence_length)
        self.token_ids[: self.steps, row, :-1] = token_ids[:-1].reshape(shape)
        self.token_ids[: self.steps, row, -1] = token_ids[sequence_length::sequence_length]
        self.resets[: self.steps, row] = resets.reshape(shape)
        self.scored[: self.steps, row] = np.broadcast_to(scored, resets.shape).reshape(shape)

    @property
    def batch_size(self) -> int:
        """How many rows are read in parallel."""
        return self.resets.shape[1]

    @property
    def sequence_length(self) -> int:
        """How many time steps a sequence has."""
        return self.resets.shape[2]

    @property
    def characters(self) -> int:
        """How many predictions are scored."""
        return int(self.scored[: self.steps].sum())


@runtime_checkable
class BlockProducer(Protocol):
    """A source of training blocks. A block depends only on the number of steps made before it."""

    @property
    def batch_size(self) -> int: ...

    @property
    def sequence_length(self) -> int: ...

    def block(self, first_step: int, steps: int, capacity: int) -> Block:
        """Returns the block of `steps` optimizer steps that begins with step `first_step`."""
        ...
