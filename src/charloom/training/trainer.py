"""Runs training steps in dispatches, with the blocks of a producer."""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float32, Float64, Int64, Key

from charloom.data import Block, BlockProducer
from charloom.training.step import StepRule, TrainingState, run_block

Rates = Callable[[int, int], Float32[np.ndarray, " count"]]
"""Returns the learning rates of a number of steps, given the first step and the number."""

_DISPATCH_SECONDS = 0.5
_MAX_CAPACITY = 16_384
_MAX_BLOCK_IDS = 4_000_000
# Optimistic speeds, from which a block's capacity of a few dispatches is computed.
_FLOPS_PER_SECOND = {"cpu": 4e11}
_ACCELERATOR_FLOPS_PER_SECOND = 4e13


class Dispatch(NamedTuple):
    """The totals of the steps of one dispatch, one element per step.

    Attributes:
        nats: sum over the scored characters, before the step.
        correct: number of scored characters that were the most likely ones.
        characters: number of scored characters.
    """

    nats: Float64[np.ndarray, " steps"]
    correct: Float64[np.ndarray, " steps"]
    characters: Int64[np.ndarray, " steps"]


class Trainer:
    """Makes steps in dispatches of about half a second. Results do not depend on how steps are grouped.

    While a dispatch runs, the block of the next one is created.

    Attributes:
        state: the state after the steps made so far.
        step: number of steps made so far.
    """

    def __init__(
        self, state: TrainingState, producer: BlockProducer, rule: StepRule, key: Key[Array, ""], step: int = 0
    ):
        self.state = state
        self.step = step
        self._producer = producer
        self._rule = rule
        self._key = key
        self._capacity = _capacity(state, producer)
        self._compiled = False
        self._seconds_per_step: float | None = None  # of the last dispatch
        self._prefetched: tuple[int, Block] | None = None  # a block created in advance, with its first step
        self._steps_timed = 0
        self._seconds_timed = 0.0

    def dispatch(self, until: int, rates: Rates) -> Dispatch:
        """Makes some steps, at least one and none after step `until`, and returns their totals."""
        block = self._next_block()
        count = min(block.steps, until - self.step)
        padded_rates = np.zeros(self._capacity, np.float32)
        padded_rates[:count] = rates(self.step, count)
        begin = time.perf_counter()
        self.state, totals = run_block(
            self.state,
            block.token_ids,
            block.resets,
            block.scored,
            block.state_resets,
            padded_rates,
            count,
            self.step,
            self._key,
            rule=self._rule,
        )
        # While XLA's threads compute, this thread prepares the next block, possibly from a disk.
        first = self.step + count
        self._prefetched = first, self._producer.block(first, self._count_after(count), self._capacity)
        nats, correct = (np.asarray(sums, dtype=np.float64)[:count] for sums in totals)
        seconds = time.perf_counter() - begin
        if self._compiled:  # the first dispatch compiles
            self._seconds_per_step = seconds / count
            self._steps_timed += count
            self._seconds_timed += seconds
        self._compiled = True
        self.step += count
        return Dispatch(nats, correct, block.scored[:count].sum(axis=(1, 2)))

    @property
    def chars_per_second(self) -> float:
        """Characters per second inside dispatches after the first; 0 until the second."""
        if not self._seconds_timed:
            return 0.0
        read = self._steps_timed * self._producer.batch_size * self._producer.sequence_length
        return read / self._seconds_timed

    def seconds_for(self, steps: int) -> float | None:
        """Returns the estimated duration of `steps` steps; None until it is known."""
        return steps * self._seconds_timed / self._steps_timed if self._steps_timed else None

    def _next_block(self) -> Block:
        if self._prefetched is not None and self._prefetched[0] == self.step:  # otherwise the run went back
            return self._prefetched[1]
        return self._producer.block(self.step, self._count_after(1), self._capacity)

    def _count_after(self, count: int) -> int:
        """Returns the number of steps that fill a dispatch, at most four times the previous `count`."""
        if self._seconds_per_step is None:
            return 1
        return max(1, min(round(_DISPATCH_SECONDS / self._seconds_per_step), 4 * count, self._capacity))


def _capacity(state: TrainingState, producer: BlockProducer) -> int:
    flops = 6 * state.network.parameters * producer.batch_size * producer.sequence_length
    rate = _FLOPS_PER_SECOND.get(jax.default_backend(), _ACCELERATOR_FLOPS_PER_SECOND)
    return max(
        1,
        min(
            int(2 * _DISPATCH_SECONDS * rate / flops),
            _MAX_BLOCK_IDS // (producer.batch_size * (producer.sequence_length + 1)),
            _MAX_CAPACITY,
        ),
    )
