"""A trainer: a state that follows a producer of blocks, one dispatch after another."""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float32, Float64, Int64, Key

from charloom.data import Block, BlockProducer
from charloom.training.update import TrainingState, UpdateRule, run_block

Rates = Callable[[int, int], Float32[np.ndarray, " count"]]
"""The learning rates of `count` updates from a first one on."""

_DISPATCH_SECONDS = 0.5
_MOST_CAPACITY = 16_384
_MOST_BLOCK_IDS = 4_000_000
# Optimistic rates, of which a block's capacity is a few dispatches' worth.
_FLOPS_PER_SECOND = {"cpu": 4e11}
_ACCELERATOR_FLOPS_PER_SECOND = 4e13


class Dispatch(NamedTuple):
    """What the updates of one dispatch came to, each in its own row.

    Attributes:
        nats: sums over the characters that counted, before the update.
        correct: how many of them were the most likely ones.
        characters: how many counted.
    """

    nats: Float64[np.ndarray, " updates"]
    correct: Float64[np.ndarray, " updates"]
    characters: Int64[np.ndarray, " updates"]


class Trainer:
    """Makes updates in dispatches of about half a second, whose length nothing else depends on.

    While one runs, the block of the next is made.

    Attributes:
        state: after the updates made so far.
        update: how many these are.
    """

    def __init__(
        self, state: TrainingState, producer: BlockProducer, rule: UpdateRule, key: Key[Array, ""], update: int = 0
    ):
        self.state = state
        self.update = update
        self._producer = producer
        self._rule = rule
        self._key = key
        self._capacity = _capacity(state, producer)
        self._compiled = False
        self._seconds_an_update: float | None = None  # in the last dispatch
        self._ahead: tuple[int, Block] | None = None  # a block that was made ahead, and its first update
        self._updates_timed = 0
        self._seconds_timed = 0.0

    def dispatch(self, until: int, rates: Rates) -> Dispatch:
        """Makes some updates, at least one and not past update `until`."""
        block = self._next_block()
        count = min(block.updates, until - self.update)
        padded_rates = np.zeros(self._capacity, np.float32)
        padded_rates[:count] = rates(self.update, count)
        begin = time.perf_counter()
        self.state, totals = run_block(
            self.state,
            block.token_ids,
            block.resets,
            block.scored,
            block.cold,
            padded_rates,
            count,
            self.update,
            self._key,
            rule=self._rule,
        )
        # XLA's threads are at work: this one reads ahead meanwhile, from a disk perhaps.
        first = self.update + count
        self._ahead = first, self._producer.block(first, self._count_after(count), self._capacity)
        nats, correct = (np.asarray(sums, dtype=np.float64)[:count] for sums in totals)
        seconds = time.perf_counter() - begin
        if self._compiled:  # the first dispatch compiles
            self._seconds_an_update = seconds / count
            self._updates_timed += count
            self._seconds_timed += seconds
        self._compiled = True
        self.update += count
        return Dispatch(nats, correct, block.scored[:count].sum(axis=(1, 2)))

    @property
    def chars_per_second(self) -> float:
        """Characters read over time inside dispatches after the first; 0 until the second."""
        if not self._seconds_timed:
            return 0.0
        read = self._updates_timed * self._producer.lanes * self._producer.unroll_length
        return read / self._seconds_timed

    def seconds_for(self, updates: int) -> float | None:
        """Returns how long `updates` would take at that speed; None until it is known."""
        return updates * self._seconds_timed / self._updates_timed if self._updates_timed else None

    def _next_block(self) -> Block:
        if self._ahead is not None and self._ahead[0] == self.update:  # else the run went back
            return self._ahead[1]
        return self._producer.block(self.update, self._count_after(1), self._capacity)

    def _count_after(self, count: int) -> int:
        """Returns how many updates fill a dispatch, but not many times the `count` of the one before."""
        if self._seconds_an_update is None:
            return 1
        return max(1, min(round(_DISPATCH_SECONDS / self._seconds_an_update), 4 * count, self._capacity))


def _capacity(state: TrainingState, producer: BlockProducer) -> int:
    flops = 6 * state.network.parameters * producer.lanes * producer.unroll_length
    rate = _FLOPS_PER_SECOND.get(jax.default_backend(), _ACCELERATOR_FLOPS_PER_SECOND)
    return max(
        1,
        min(
            int(2 * _DISPATCH_SECONDS * rate / flops),
            _MOST_BLOCK_IDS // (producer.lanes * (producer.unroll_length + 1)),
            _MOST_CAPACITY,
        ),
    )
