"""The training loop: dispatch blocks, evaluate in between, keep the best weights."""

import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from charloom.data import Lanes, TokenStream, evaluation_pass
from charloom.inference import score_blocks
from charloom.models import Network
from charloom.settings import TrainingSettings
from charloom.training.events import Evaluation, Event, Progress, Stopped, StopReason
from charloom.training.schedule import evaluation_interval, learning_rates
from charloom.training.trainer import Trainer
from charloom.training.update import UpdateRule, initial_state


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
    on timing, unless `should_stop` ends the run; it is asked between dispatches, of about half a second.
    """
    rule = UpdateRule(dropout=settings.dropout, cold_starts=settings.cold_starts, clip_norm=settings.clip_norm)
    trainer = Trainer(initial_state(network, lanes.lanes, rule), lanes, rule, key)
    interval = evaluation_interval(updates, lanes.characters_per_update, len(validation))
    lowest = math.inf
    since_evaluation: list[float] = []
    reason: StopReason = "finished"
    while trainer.update < updates and reason == "finished":
        until = min(updates, (trainer.update // interval + 1) * interval)
        done = trainer.dispatch(until, lambda first, count: learning_rates(settings, first, count, updates))
        epoch = trainer.update * lanes.characters_per_update / len(lanes.stream)
        since_evaluation.extend(done.nats / done.characters)
        yield Progress(
            update=trainer.update,
            updates=updates,
            epoch=epoch,
            train_nats_per_char=float(done.nats.sum() / done.characters.sum()),
            chars_per_second=trainer.chars_per_second,
            seconds_left=trainer.seconds_for(updates - trainer.update),
        )
        if not np.isfinite(done.nats).all():
            reason = "diverged"
        elif should_stop():
            reason = "interrupted"
        elif trainer.update < until:
            continue
        nats_per_char = score_blocks(trainer.state.network, evaluation_pass(validation)).nats_per_char
        improved = nats_per_char < lowest
        evaluation = Evaluation(
            update=trainer.update,
            epoch=epoch,
            train_nats_per_char=float(np.mean(since_evaluation)),
            validation_nats_per_char=nats_per_char,
            improved=improved,
            network=jax.tree.map(jnp.copy, trainer.state.network),
        )
        since_evaluation = []
        lowest = nats_per_char if improved else lowest
        yield evaluation
        if reason == "finished" and should_stop():
            reason = "interrupted"
    epoch = trainer.update * lanes.characters_per_update / len(lanes.stream)
    stopped = Stopped(reason, trainer.update, epoch, trainer.chars_per_second)
    yield stopped
