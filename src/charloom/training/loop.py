"""The training loop: dispatch blocks, evaluate in between, keep the best weights."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from charloom.data import Lanes, TokenStream, evaluation_pass
from charloom.inference import mean_nats
from charloom.models import Network
from charloom.settings import TrainingSettings
from charloom.training.events import Evaluation, Event, Progress, Stopped, StopReason
from charloom.training.schedule import evaluation_interval, learning_rates
from charloom.training.update import TrainingState, make_optimizer, run_block

_DISPATCH_SECONDS = 0.2
_MOST_CAPACITY = 16_384
_MOST_BLOCK_IDS = 4_000_000
# Optimistic rates, of which a block's capacity is a few dispatches' worth.
_FLOPS_PER_SECOND = {"cpu": 4e11}
_ACCELERATOR_FLOPS_PER_SECOND = 4e13


def train_network(
    network: Network,
    lanes: Lanes,
    validation: TokenStream,
    settings: TrainingSettings,
    updates: int,
    key: Key[Array, ""],
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Event]:
    """Yields Progress and Evaluation events, and at the end Stopped.

    The weights after the last update are always evaluated. Results depend on counts and the key alone, not
    on timing, unless `should_stop` ends the run; it is asked between dispatches, of about a fifth of a second.
    """
    state = TrainingState(
        jax.tree.map(jnp.copy, network),  # the state is donated, the caller's network is not
        make_optimizer(settings.clip_norm).init(network),
        network.zero_carry(lanes.lanes),
    )
    interval = evaluation_interval(updates, lanes.characters_per_update, len(validation))
    clock = _DispatchClock(lanes.characters_per_update)
    capacity = _capacity(network, lanes)
    lowest = math.inf
    since_evaluation: list[np.ndarray] = []
    reason: StopReason = "finished"
    update = 0
    while update < updates and reason == "finished":
        count = min(clock.next_count(capacity), updates - update, interval - update % interval)
        block = lanes.block(update, count, capacity)
        rates = np.zeros(capacity, np.float32)
        rates[:count] = learning_rates(settings, update, count, updates)
        with clock.dispatch(count):
            state, nats = run_block(
                state,
                block.token_ids,
                block.resets,
                block.scored,
                rates,
                count,
                update,
                key,
                dropout=settings.dropout,
                cold_starts=settings.cold_starts,
                clip_norm=settings.clip_norm,
            )
            losses = np.asarray(nats, dtype=np.float64)[:count]
        update += count
        epoch = update * lanes.characters_per_update / len(lanes.stream)
        since_evaluation.append(losses)
        yield Progress(
            update=update,
            updates=updates,
            epoch=epoch,
            train_nats_per_char=float(losses.mean()),
            chars_per_second=clock.chars_per_second,
            seconds_left=clock.seconds_for(updates - update),
        )
        if not np.isfinite(losses).all():
            reason = "diverged"
        elif should_stop():
            reason = "interrupted"
        elif update % interval and update < updates:
            continue
        nats_per_char = mean_nats(state.network, evaluation_pass(validation))
        improved = nats_per_char < lowest
        evaluation = Evaluation(
            update=update,
            epoch=epoch,
            train_nats_per_char=float(np.concatenate(since_evaluation).mean()),
            validation_nats_per_char=nats_per_char,
            improved=improved,
            network=jax.tree.map(jnp.copy, state.network),
        )
        since_evaluation = []
        lowest = nats_per_char if improved else lowest
        yield evaluation
        if reason == "finished" and should_stop():
            reason = "interrupted"
    stopped = Stopped(reason, update, update * lanes.characters_per_update / len(lanes.stream), clock.chars_per_second)
    yield stopped


@dataclass
class _DispatchClock:
    """Times dispatches, and sizes the next so that there are about five a second."""

    characters_per_update: int
    updates_timed: int = 0
    seconds_timed: float = 0.0
    _compiled: bool = False
    _last: tuple[int, float] | None = field(default=None)

    @contextmanager
    def dispatch(self, count: int) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        seconds = time.perf_counter() - begin
        if self._compiled:  # the first dispatch compiles
            self.updates_timed += count
            self.seconds_timed += seconds
            self._last = count, seconds
        self._compiled = True

    def next_count(self, capacity: int) -> int:
        if self._last is None:
            return 1
        count, seconds = self._last
        return max(1, min(round(count * _DISPATCH_SECONDS / seconds), 4 * count, capacity))

    @property
    def chars_per_second(self) -> float:
        if not self.seconds_timed:
            return 0.0
        return self.updates_timed * self.characters_per_update / self.seconds_timed

    def seconds_for(self, updates: int) -> float | None:
        return updates * self.seconds_timed / self.updates_timed if self.updates_timed else None


def _capacity(network: Network, lanes: Lanes) -> int:
    flops = 6 * network.parameters * lanes.characters_per_update
    rate = _FLOPS_PER_SECOND.get(jax.default_backend(), _ACCELERATOR_FLOPS_PER_SECOND)
    return max(
        1,
        min(
            int(2 * _DISPATCH_SECONDS * rate / flops),
            _MOST_BLOCK_IDS // (lanes.lanes * (lanes.unroll_length + 1)),
            _MOST_CAPACITY,
        ),
    )
