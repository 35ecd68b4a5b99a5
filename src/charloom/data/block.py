"""A block: what one compiled call consumes, whoever produced it."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int32, Integer


@dataclass(frozen=True)
class Block:
    """Consecutive unrolls of some lanes, in NumPy arrays of a fixed capacity.

    Attributes:
        token_ids: step t of an unroll reads entry t and predicts entry t + 1.
        resets: where True a text begins at the step: the state is zeroed, and the start input
            stands in for entry t.
        scored: where True the step's prediction counts.
        cold: where True the lane's state is zeroed before the unroll, and nothing else: its first step reads
            the token given, as if in the middle of a text.
        updates: how many of the leading unrolls are filled; the rest is left alone.
    """

    token_ids: Int32[np.ndarray, "capacity lanes unroll_plus_1"]
    resets: Bool[np.ndarray, "capacity lanes unroll"]
    scored: Bool[np.ndarray, "capacity lanes unroll"]
    cold: Bool[np.ndarray, "capacity lanes"]
    updates: int

    @classmethod
    def empty(cls, capacity: int, lanes: int, unroll_length: int, updates: int) -> "Block":
        """Returns a block of zeros to be filled in: no resets, nothing scored, nothing cold."""
        return cls(
            token_ids=np.zeros((capacity, lanes, unroll_length + 1), dtype=np.int32),
            resets=np.zeros((capacity, lanes, unroll_length), dtype=bool),
            scored=np.zeros((capacity, lanes, unroll_length), dtype=bool),
            cold=np.zeros((capacity, lanes), dtype=bool),
            updates=updates,
        )

    def fill_lane(
        self,
        lane: int,
        token_ids: Integer[np.ndarray, " steps_plus_1"],
        resets: Bool[np.ndarray, " steps"],
        scored: Bool[np.ndarray, " steps"] | bool = True,
    ) -> None:
        """Lays a lane's consecutive steps out over the filled unrolls; neighbors share an id."""
        unroll_length = self.resets.shape[2]
        shape = (self.updates, unroll_length)
        self.token_ids[: self.updates, lane, :-1] = token_ids[:-1].reshape(shape)
        self.token_ids[: self.updates, lane, -1] = token_ids[unroll_length::unroll_length]
        self.resets[: self.updates, lane] = resets.reshape(shape)
        self.scored[: self.updates, lane] = np.broadcast_to(scored, resets.shape).reshape(shape)

    @property
    def lanes(self) -> int:
        """How many lanes are read side by side."""
        return self.resets.shape[1]

    @property
    def unroll_length(self) -> int:
        """Steps of an unroll."""
        return self.resets.shape[2]

    @property
    def characters(self) -> int:
        """How many predictions count."""
        return int(self.scored[: self.updates].sum())


@runtime_checkable
class BlockProducer(Protocol):
    """What training reads from: its cursor is the number of updates made, a Python int."""

    @property
    def lanes(self) -> int: ...

    @property
    def unroll_length(self) -> int: ...

    def block(self, first_update: int, updates: int, capacity: int) -> Block:
        """Returns the block of `updates` updates from `first_update` on."""
        ...
