"""The training loop: dispatches blocks, evaluates in between, keeps the best weights, and recovers from divergence."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Key

from charloom.data import ContiguousBatches, TokenStream, evaluation_pass
from charloom.inference import score_blocks
from charloom.models import Network
from charloom.settings import TrainingSettings
from charloom.training.budget import Deadline
from charloom.training.events import Evaluating, Evaluation, Event, Notice, Progress, Stopped, TrainingEnd
from charloom.training.phases import has_diverged
from charloom.training.schedule import TRAINING_COST, StepPlan, evaluations, learning_rates
from charloom.training.step import StepRule, TrainingState, initial_state
from charloom.training.trainer import Dispatch, Trainer

MAX_RETRIES = 3
"""How many times a diverged loop goes back to the last evaluation, each time with half the learning rate."""


@dataclass(frozen=True)
class LoopProgress:
    """The progress of a loop, as JSON values.

    Attributes:
        step_plan: the step plan from the beginning of the run.
        step: number of steps made.
        evaluated: number of steps made at the last scheduled evaluation, when `good` was saved.
        nats_sum: sum of the mean losses of the steps since then.
        nats_count: number of these steps.
        lowest: lowest evaluation so far; None before the first.
        stale: number of evaluations since the lowest.
        retries: how many times the loop went back; each time halved the learning rates.
    """

    step_plan: StepPlan
    step: int = 0
    evaluated: int = 0
    nats_sum: float = 0.0
    nats_count: int = 0
    lowest: float | None = None
    stale: int = 0
    retries: int = 0


class LoopState(NamedTuple):
    """Everything that a loop needs to resume. A resumed loop gives the same results, bit for bit.

    Attributes:
        training: the state after the last step.
        good: the state to which a diverged loop goes back.
        progress: the progress.
    """

    training: TrainingState
    good: TrainingState
    progress: LoopProgress


def step_rule(settings: TrainingSettings) -> StepRule:
    """Returns the rule of a step for `settings`."""
    return StepRule(
        dropout=settings.dropout,
        state_reset_probability=settings.state_reset_probability,
        clip_norm=settings.clip_norm,
        nesterov=True,
        weight_dropout=settings.weight_dropout,
        weight_decay=settings.weight_decay,
        precision="float32" if settings.precision == "auto" else settings.precision,
    )


class TrainingLoop:
    """Trains a network on rows of a text, for a number of steps.

    Results depend only on counts and the key, not on timing, unless a stop request ends the run or there is a deadline.

    Args:
        network: the initial weights; with `start`, any weights of that shape.
        batches: the training text.
        validation: the text that evaluations score.
        settings: learning rate, dropout, patience and so on.
        step_plan: the number of steps.
        key: the key of all random numbers.
        start: a state from which to resume.
        deadline: changes the number of steps so that the run ends in time; None to follow the step plan.
    """

    def __init__(
        self,
        network: Network,
        batches: ContiguousBatches,
        validation: TokenStream,
        settings: TrainingSettings,
        step_plan: StepPlan,
        key: Key[Array, ""],
        start: LoopState | None = None,
        deadline: Deadline | None = None,
    ):
        rule = step_rule(settings)
        state = initial_state(network, batches.batch_size, rule) if start is None else start.training
        self._progress = LoopProgress(step_plan) if start is None else start.progress
        self._good = _copy(state) if start is None else start.good
        self._trainer = Trainer(state, batches, rule, key, self._progress.step)
        self._batches = batches
        self._validation = validation
        self._settings = settings
        self._deadline = deadline
        self._is_new = start is None
        self._scoring_seconds: float | None = None  # of the last evaluation
        # From the first plan, so that a repeated run is evaluated at the same steps.
        self._evaluations = evaluations(self._step_plan.plans[0][1], batches.characters_per_step, len(validation))

    @property
    def state(self) -> LoopState:
        """The state from which the loop would resume. Its arrays are valid until the next event is requested."""
        return LoopState(self._trainer.state, self._good, self._progress)

    def events(self, should_stop: Callable[[], bool] = lambda: False) -> Iterator[Event]:
        """Yields Progress and Evaluation events, Notices about problems, and finally Stopped.

        The weights after the last step are always evaluated, even if `should_stop` ended the run.
        `should_stop` is called after evaluations and after dispatches, which take about half a second.
        """
        reason: TrainingEnd = "patience" if self._is_out_of_patience else "finished"
        while self._progress.evaluated < self._step_plan.steps and reason == "finished":
            nats, wrong_at = math.nan, self._next_evaluation
            while self._trainer.step < self._next_evaluation and reason == "finished":
                begin = self._spent
                done = self._trainer.dispatch(self._next_evaluation, self._rates)
                awake_seconds = self._spent - begin
                means = done.nats / done.characters
                if wrong := [at for at, mean in enumerate(means) if has_diverged(mean)]:
                    wrong_at = self._progress.step + wrong[0] + 1
                    break
                stopping = should_stop()
                self._add(means)
                self._plan(done, awake_seconds)
                yield self._progress_event(float(done.nats.sum() / done.characters.sum()), stopping)
                if stopping:
                    reason = "interrupted"
            else:
                yield Evaluating(self._expected_scoring_seconds)
                begin, wrong_at = self._spent, self._trainer.step
                nats = self._score()
                scoring_seconds = self._spent - begin
            if has_diverged(nats):
                if reason == "interrupted":  # the resumed run will detect it again
                    break
                yield Notice(self._divergence_message(wrong_at))
                self._go_back()
                if self._progress.retries == MAX_RETRIES:
                    reason = "diverged"
                else:
                    self._change(retries=self._progress.retries + 1)
                continue
            evaluation = self._evaluation(nats)
            if self._trainer.step == self._next_evaluation:
                self._settle(evaluation)
                if self._is_out_of_patience:
                    reason = "patience"
            yield evaluation
            if self._deadline is not None:
                self._deadline.record_evaluation(self._spent - begin, scoring_seconds, evaluation.network)
            if reason == "finished" and self._progress.evaluated < self._step_plan.steps and should_stop():
                yield self._progress_event(evaluation.train_nats_per_char, stopping=True)
                reason = "interrupted"
        yield Stopped(reason, self._trainer.step, self._epoch, self._trainer.chars_per_second)

    @property
    def _is_out_of_patience(self) -> bool:
        return self._settings.patience is not None and self._progress.stale >= self._settings.patience

    @property
    def _step_plan(self) -> StepPlan:
        return self._progress.step_plan

    @property
    def _spent(self) -> float:
        """Seconds spent of the budget; 0 without one."""
        return 0.0 if self._deadline is None else self._deadline.budget.spent

    @property
    def _next_evaluation(self) -> int:
        """The step of the next evaluation in the current plan."""
        return self._step_plan.first_at(
            (self._evaluations_by(self._progress.evaluated) + 1) / self._evaluations,
            self._progress.evaluated,
        )

    def _evaluations_by(self, step: int) -> int:
        """Returns the number of evaluations that are due up to `step`."""
        return int(self._step_plan.progress(np.array([step]))[0] * self._evaluations + 1e-9)

    @property
    def _epoch(self) -> float:
        return self._trainer.step * self._batches.characters_per_step / len(self._batches.stream)

    def _rates(self, first: int, count: int) -> Float32[np.ndarray, " count"]:
        rates = learning_rates(self._settings, self._step_plan, first, count)
        return rates * np.float32(0.5**self._progress.retries)

    def _add(self, means: np.ndarray) -> None:
        nats_sum = self._progress.nats_sum
        for mean in means.tolist():  # one at a time: the sum must not depend on the dispatches
            nats_sum += mean
        count = self._progress.nats_count + len(means)
        self._change(step=self._trainer.step, nats_sum=nats_sum, nats_count=count)

    def _plan(self, done: Dispatch, seconds: float) -> None:
        """Changes the plan if it would not end in time, after `seconds` of a dispatch `done`."""
        if self._deadline is None:
            return
        if self._trainer.seconds_for(1) is None:  # the first dispatch compiled
            if self._is_new:  # a resumed run can end with one more step
                self._deadline.require_time()
            return
        self._deadline.record_dispatch(len(done.nats), seconds)
        step = self._trainer.step
        if step < self._step_plan.steps:
            left = self._evaluations - self._evaluations_by(self._progress.evaluated)
            self._change(step_plan=self._deadline.replanned(self._step_plan, step, left))

    def _progress_event(self, train_nats_per_char: float, stopping: bool) -> Progress:
        return Progress(
            step=self._trainer.step,
            steps=self._step_plan.steps,
            epoch=self._epoch,
            train_nats_per_char=train_nats_per_char,
            chars_per_second=self._trainer.chars_per_second,
            seconds_left=self._trainer.seconds_for(self._step_plan.steps - self._trainer.step)
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
        """Duration of the last evaluation. Before the first one, it is estimated from the speed of training."""
        speed = self._trainer.chars_per_second
        if self._scoring_seconds is None and speed:
            return len(self._validation) / TRAINING_COST / speed
        return self._scoring_seconds

    def _evaluation(self, nats_per_char: float) -> Evaluation:
        return Evaluation(
            step=self._trainer.step,
            epoch=self._epoch,
            train_nats_per_char=self._progress.nats_sum / self._progress.nats_count,
            validation_nats_per_char=nats_per_char,
            improved=self._progress.lowest is None or nats_per_char < self._progress.lowest,
            network=jax.tree.map(jnp.copy, self._trainer.state.network),
        )

    def _settle(self, evaluation: Evaluation) -> None:
        self._good = _copy(self._trainer.state)
        self._change(
            evaluated=evaluation.step,
            nats_sum=0.0,
            nats_count=0,
            lowest=evaluation.validation_nats_per_char if evaluation.improved else self._progress.lowest,
            stale=0 if evaluation.improved else self._progress.stale + 1,
        )

    def _divergence_message(self, step: int) -> str:
        at = f"training diverged at step {step:,}"
        if self._progress.retries == MAX_RETRIES:
            return f"{at}, after {MAX_RETRIES} retries at half the learning rate"
        return (
            f"{at}: going back to step {self._progress.evaluated:,} at half the learning rate "
            f"(retry {self._progress.retries + 1} of {MAX_RETRIES})"
        )

    def _go_back(self) -> None:
        self._trainer.state, self._trainer.step = _copy(self._good), self._progress.evaluated
        step_plan = self._step_plan if self._deadline is None else self._step_plan.until(self._progress.evaluated)
        self._change(step=self._progress.evaluated, nats_sum=0.0, nats_count=0, step_plan=step_plan)

    def _change(self, **values: Any) -> None:
        self._progress = replace(self._progress, **values)


def _copy(state: TrainingState) -> TrainingState:
    return jax.tree.map(jnp.copy, state)
