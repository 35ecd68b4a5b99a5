"""The training loop: dispatch blocks, evaluate in between, keep the best weights, go back where the loss runs away."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Key

from charloom.data import Lanes, TokenStream, evaluation_pass
from charloom.inference import score_blocks
from charloom.models import Network
from charloom.settings import TrainingSettings
from charloom.training.budget import Deadline
from charloom.training.events import Evaluating, Evaluation, Event, Notice, Progress, Stopped, StopReason
from charloom.training.phases import has_diverged
from charloom.training.schedule import Pace, evaluations, learning_rates
from charloom.training.trainer import Dispatch, Trainer
from charloom.training.update import TrainingState, UpdateRule, initial_state

MOST_RETRIES = 3
"""So often a loop goes back, each time at half the rate, before it gives up."""


@dataclass(frozen=True)
class LoopCounts:
    """Where a loop stands, as JSON values.

    Attributes:
        pace: how the run was planned to go on, from its beginning to now.
        update: updates made.
        evaluated: those made at the last evaluation that was due; `good` is the state there.
        nats_sum: sum of the means of the updates since then.
        nats_count: how many these are.
        lowest: of the evaluations so far; None before the first.
        stale: evaluations since the lowest.
        retries: how often the loop went back; each time halved the rates.
    """

    pace: Pace
    update: int = 0
    evaluated: int = 0
    nats_sum: float = 0.0
    nats_count: int = 0
    lowest: float | None = None
    stale: int = 0
    retries: int = 0


class LoopState(NamedTuple):
    """All that a loop goes on from: as if it had never stopped, to the last bit.

    Attributes:
        training: the state after the last update.
        good: the state that the loop goes back to.
        counts: where it stands.
    """

    training: TrainingState
    good: TrainingState
    counts: LoopCounts


def update_rule(settings: TrainingSettings) -> UpdateRule:
    """Returns what an update does, by the settings."""
    return UpdateRule(
        dropout=settings.dropout,
        cold_starts=settings.cold_starts,
        clip_norm=settings.clip_norm,
        nesterov=True,
        weight_drop=settings.weight_drop,
        weight_decay=settings.weight_decay,
    )


class TrainingLoop:
    """Trains a network on lanes of a text, for a number of updates.

    Results depend on counts and the key alone, not on timing, unless a wish to stop ends the run or there is a
    deadline.

    Args:
        network: the first weights, or any of that shape where there is a `start`.
        lanes: what is read.
        validation: what evaluations score.
        settings: rates, dropout, patience.
        pace: how many updates are made in all.
        key: of all randomness.
        start: a state to go on from.
        deadline: plans anew how many updates are made, so that the run ends in time; None for the pace as it is.
    """

    def __init__(
        self,
        network: Network,
        lanes: Lanes,
        validation: TokenStream,
        settings: TrainingSettings,
        pace: Pace,
        key: Key[Array, ""],
        start: LoopState | None = None,
        deadline: Deadline | None = None,
    ):
        rule = update_rule(settings)
        state = initial_state(network, lanes.lanes, rule) if start is None else start.training
        self._counts = LoopCounts(pace) if start is None else start.counts
        self._good = _copy(state) if start is None else start.good
        self._trainer = Trainer(state, lanes, rule, key, self._counts.update)
        self._lanes = lanes
        self._validation = validation
        self._settings = settings
        self._deadline = deadline
        self._is_new = start is None
        self._scoring_seconds: float | None = None  # of the last evaluation
        # Of the first plan, so that a run that is made once more is evaluated at the same updates.
        self._evaluations = evaluations(self._pace.plans[0][1], lanes.characters_per_update, len(validation))

    @property
    def state(self) -> LoopState:
        """What the loop would go on from; its arrays are good until the next event is asked for."""
        return LoopState(self._trainer.state, self._good, self._counts)

    def events(self, should_stop: Callable[[], bool] = lambda: False) -> Iterator[Event]:
        """Yields Progress and Evaluation events, Notices of what went wrong, and at the end Stopped.

        The weights after the last update are always evaluated, also where `should_stop` ended the run; it is asked
        after dispatches, of about half a second, and after evaluations.
        """
        reason: StopReason = "patience" if self._is_out_of_patience else "finished"
        while self._counts.evaluated < self._pace.updates and reason == "finished":
            nats, wrong_at = math.nan, self._next_evaluation
            while self._trainer.update < self._next_evaluation and reason == "finished":
                begin = self._spent
                done = self._trainer.dispatch(self._next_evaluation, self._rates)
                awake_seconds = self._spent - begin
                means = done.nats / done.characters
                if wrong := [at for at, mean in enumerate(means) if has_diverged(mean)]:
                    wrong_at = self._counts.update + wrong[0] + 1
                    break
                stopping = should_stop()
                self._add(means)
                self._plan(done, awake_seconds)
                yield self._progress(float(done.nats.sum() / done.characters.sum()), stopping)
                if stopping:
                    reason = "interrupted"
            else:
                yield Evaluating(self._expected_scoring_seconds)
                begin, wrong_at = self._spent, self._trainer.update
                nats = self._score()
                scoring_seconds = self._spent - begin
            if has_diverged(nats):
                if reason == "interrupted":  # to be found out again when the run is gone on with
                    break
                yield Notice(self._went_wrong(wrong_at))
                self._go_back()
                if self._counts.retries == MOST_RETRIES:
                    reason = "diverged"
                else:
                    self._change(retries=self._counts.retries + 1)
                continue
            evaluation = self._evaluation(nats)
            if self._trainer.update == self._next_evaluation:
                self._settle(evaluation)
                if self._is_out_of_patience:
                    reason = "patience"
            yield evaluation
            if self._deadline is not None:
                self._deadline.evaluated(self._spent - begin, scoring_seconds, evaluation.network)
            if reason == "finished" and self._counts.evaluated < self._pace.updates and should_stop():
                yield self._progress(evaluation.train_nats_per_char, stopping=True)
                reason = "interrupted"
        yield Stopped(reason, self._trainer.update, self._epoch, self._trainer.chars_per_second)

    @property
    def _is_out_of_patience(self) -> bool:
        return self._settings.patience is not None and self._counts.stale >= self._settings.patience

    @property
    def _pace(self) -> Pace:
        return self._counts.pace

    @property
    def _spent(self) -> float:
        """Seconds of the budget, where there is one."""
        return 0.0 if self._deadline is None else self._deadline.budget.spent

    @property
    def _next_evaluation(self) -> int:
        """The update after which the next evaluation is due, as it is planned now."""
        return self._pace.first_at(
            (self._evaluations_by(self._counts.evaluated) + 1) / self._evaluations, self._counts.evaluated
        )

    def _evaluations_by(self, update: int) -> int:
        """Returns how many evaluations are due up to `update`."""
        return int(self._pace.progress(np.array([update]))[0] * self._evaluations + 1e-9)

    @property
    def _epoch(self) -> float:
        return self._trainer.update * self._lanes.characters_per_update / len(self._lanes.stream)

    def _rates(self, first: int, count: int) -> Float32[np.ndarray, " count"]:
        rates = learning_rates(self._settings, self._pace, first, count)
        return rates * np.float32(0.5**self._counts.retries)

    def _add(self, means: np.ndarray) -> None:
        nats_sum = self._counts.nats_sum
        for mean in means.tolist():  # one by one: the sum must not depend on how updates are grouped
            nats_sum += mean
        count = self._counts.nats_count + len(means)
        self._change(update=self._trainer.update, nats_sum=nats_sum, nats_count=count)

    def _plan(self, done: Dispatch, seconds: float) -> None:
        """Plans anew where this pace would not end in time, after the updates that are `done` in so many seconds."""
        if self._deadline is None:
            return
        if self._trainer.seconds_for(1) is None:  # the first dispatch compiled
            if self._is_new:  # what is gone on with ends well with one more update
                self._deadline.require_time()
            return
        self._deadline.dispatched(len(done.nats), seconds)
        update = self._trainer.update
        if update < self._pace.updates:
            left = self._evaluations - self._evaluations_by(self._counts.evaluated)
            self._change(pace=self._deadline.replanned(self._pace, update, left))

    def _progress(self, train_nats_per_char: float, stopping: bool) -> Progress:
        return Progress(
            update=self._trainer.update,
            updates=self._pace.updates,
            epoch=self._epoch,
            train_nats_per_char=train_nats_per_char,
            chars_per_second=self._trainer.chars_per_second,
            seconds_left=self._trainer.seconds_for(self._pace.updates - self._trainer.update)
            if self._deadline is None
            else max(0.0, self._deadline.budget.left),
            stopping=stopping,
        )

    def _score(self) -> float:
        begin = time.monotonic()
        score = score_blocks(self._trainer.state.network, evaluation_pass(self._validation))
        self._scoring_seconds = time.monotonic() - begin
        return score.nats_per_char

    @property
    def _expected_scoring_seconds(self) -> float | None:
        """What the last evaluation took, or at first a third of what it takes to train on as many characters."""
        speed = self._trainer.chars_per_second
        if self._scoring_seconds is None and speed:
            return len(self._validation) / (3 * speed)
        return self._scoring_seconds

    def _evaluation(self, nats_per_char: float) -> Evaluation:
        return Evaluation(
            update=self._trainer.update,
            epoch=self._epoch,
            train_nats_per_char=self._counts.nats_sum / self._counts.nats_count,
            validation_nats_per_char=nats_per_char,
            improved=self._counts.lowest is None or nats_per_char < self._counts.lowest,
            network=jax.tree.map(jnp.copy, self._trainer.state.network),
        )

    def _settle(self, evaluation: Evaluation) -> None:
        self._good = _copy(self._trainer.state)
        self._change(
            evaluated=evaluation.update,
            nats_sum=0.0,
            nats_count=0,
            lowest=evaluation.validation_nats_per_char if evaluation.improved else self._counts.lowest,
            stale=0 if evaluation.improved else self._counts.stale + 1,
        )

    def _went_wrong(self, update: int) -> str:
        at = f"training diverged at update {update:,}"
        if self._counts.retries == MOST_RETRIES:
            return f"{at}, after {MOST_RETRIES} times at half the rate"
        return (
            f"{at}: back to update {self._counts.evaluated:,}, at half the learning rate "
            f"(try {self._counts.retries + 1} of {MOST_RETRIES})"
        )

    def _go_back(self) -> None:
        self._trainer.state, self._trainer.update = _copy(self._good), self._counts.evaluated
        pace = self._pace if self._deadline is None else self._pace.until(self._counts.evaluated)
        self._change(update=self._counts.evaluated, nats_sum=0.0, nats_count=0, pace=pace)

    def _change(self, **values: Any) -> None:
        self._counts = replace(self._counts, **values)


def _copy(state: TrainingState) -> TrainingState:
    return jax.tree.map(jnp.copy, state)
