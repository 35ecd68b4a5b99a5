"""A time budget: how much of it is spent, and how many steps fit into the rest."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from charloom.errors import BudgetError
from charloom.models import Network
from charloom.settings import MAX_COUNT
from charloom.training.schedule import StepPlan
from charloom.units import shortest_seconds

# If the process used less than this share of its usual CPU time during a pause of at least this length, the machine or
# the process was suspended. Next to a dozen busy processes, it still uses a tenth.
_ASLEEP_SECONDS = 3.0
_ASLEEP_SHARE = 0.05
# Shorter intervals do not show how many cores are in use.
_MIN_MEASURED_SECONDS = 0.1
# A plan is changed if it would end this much too early or too late: seconds, or a share of what is left. Unless it is
# urgent, at least such a share must have passed since the last change. Otherwise a long run would have very many plans.
_TOLERANCE_SECONDS = 0.25
_TOLERANCE_SHARE = 0.05
_URGENT_SHARE = 0.5
# The period over which the speed estimate halves the weight of earlier steps: seconds, or a share of what is left.
_MEMORY_SECONDS = 3.0
_MEMORY_SHARE = 0.02
_EXIT_SECONDS = 0.4
# The work after training cannot be cut short, and a busy machine may slow it down.
_CLOSING_MARGIN = 1.05
# Measurements over less time than this are unreliable. They are used only if the plan could end within it.
_FIRST_SECONDS = 0.4
_FIRST_SHARE = 0.125
# A step that would be at least half done at the deadline is still made, unless it would end this much later.
_LATE_SECONDS = 2.0


class Budget:
    """The seconds that a command may take.

    Time asleep does not count: the machine's, and during training also time in which the process was stopped.

    Attributes:
        seconds: the whole budget.
        reserved: seconds of it for the caller's work afterwards.
        is_training: whether the process computes all the time, so that idle time means sleep.
            Before training, the process may wait for a text, a compiler or a disk.
        longest_wait: seconds of the longest `waiting` so far.

    Args:
        seconds: the whole budget.
        spent: seconds of it that are already spent.
        reserved: as above.
        clock: a monotonic clock in seconds.
        cpu_clock: CPU seconds of all threads of the process.
    """

    def __init__(
        self,
        seconds: float,
        spent: float = 0.0,
        reserved: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.process_time,
    ):
        self.seconds = seconds
        self.reserved = reserved
        self.is_training = False
        self.longest_wait = 0.0
        self._spent = spent
        self._clock, self._cpu_clock = clock, cpu_clock
        self._last_reading = clock(), cpu_clock()
        self._cores = 0.0  # estimated number of cores in use during training

    @property
    def spent(self) -> float:
        """Seconds spent. Read it every few seconds: sleep is detected between two reads."""
        now, cpu_seconds = self._clock(), self._cpu_clock()
        passed, computed = now - self._last_reading[0], cpu_seconds - self._last_reading[1]
        if self.is_training and passed >= _ASLEEP_SECONDS and computed < _ASLEEP_SHARE * self._cores * passed:
            passed = computed / self._cores
        elif self.is_training and passed > _MIN_MEASURED_SECONDS:
            # Averaged, so that a short wait has little effect.
            self._cores = (self._cores + computed / passed) / 2 if self._cores else computed / passed
        self._spent += passed
        self._last_reading = now, cpu_seconds
        return self._spent

    def add_spent(self, spent: float) -> None:
        """Adds seconds that an earlier process spent."""
        self._spent += spent

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts a wait, for example for a disk, as spent time instead of sleep."""
        began, trained = self.spent, self.is_training
        self.is_training = False
        try:
            yield
        finally:
            self.longest_wait = max(self.longest_wait, self.spent - began)
            self.is_training = trained

    @property
    def left(self) -> float:
        """Seconds left; negative if the budget is exceeded."""
        return self.seconds - self.reserved - self.spent


@dataclass
class Deadline:
    """Plans how many steps a run has time for, from measurements during the run.

    Attributes:
        budget: the budget of the whole run.
        score_seconds: duration of scoring the kept model after training.
        scoring_seconds: duration of scoring the text of an evaluation.
        evaluations_after: how many times that text is scored again after training.
        measure_score: measures on a part of the text how long scoring a network takes; None for never.

    The durations are first those measured before training. They then follow the speed of steps
    and evaluations and the repeated measurements, so that they also hold on a busy machine.
    """

    budget: Budget
    score_seconds: float
    scoring_seconds: float
    evaluations_after: int = 0
    measure_score: Callable[[Network], float] | None = None
    _seconds: float = field(default=0.0, init=False)  # of the last steps, weighted towards later ones
    _steps: float = field(default=0.0, init=False)
    _began: float = field(default=0.0, init=False)
    _training: float = field(default=0.0, init=False)
    _evaluating: float = field(default=0.0, init=False)
    # Seconds of an evaluation after its scoring, for the last two evaluations.
    _after_evaluation: tuple[float, float] = field(default=(0.0, 0.0), init=False)
    _step_seconds: float | None = field(default=None, init=False)  # step duration on which the estimates are based
    _planned: float = field(default=-math.inf, init=False)  # seconds spent when the plan last changed

    @property
    def closing_seconds(self) -> float:
        """Duration of the work after the last step and its evaluation."""
        return self.score_seconds + self.evaluations_after * self.scoring_seconds

    @property
    def evaluation_seconds(self) -> float:
        """Duration of an evaluation with what usually follows it, such as saving a file or generating a sample.

        A single long one, for example because of a compiler or a disk, is not expected to repeat.
        """
        return self.scoring_seconds + min(self._after_evaluation)

    def record_dispatch(self, steps: int, seconds: float) -> None:
        """Records the duration of a dispatch of `steps` steps."""
        if not self._training:
            self._began = self.budget.spent - seconds
            self.budget.is_training = True
        old = 0.5 ** (seconds / max(_MEMORY_SECONDS, _MEMORY_SHARE * self.budget.left))
        self._seconds = old * self._seconds + seconds
        self._steps = old * self._steps + steps
        self._training += seconds

    def record_evaluation(self, seconds: float, scoring_seconds: float, network: Network) -> None:
        """Records the durations of an evaluation of `network`: as a whole, and of its scoring.

        Measurements are averaged with the estimates, which already follow the speed of steps.
        """
        self._follow_steps()
        is_known, expected = self._evaluating > 0, self.scoring_seconds
        self.scoring_seconds = (expected + scoring_seconds) / 2 if is_known else scoring_seconds
        self._after_evaluation = self._after_evaluation[1], seconds - scoring_seconds
        self._evaluating += seconds
        if self.measure_score is not None:
            measured = self.measure_score(network)
            self.score_seconds = (self.score_seconds + measured) / 2 if is_known else measured
        elif expected > 0:
            self.score_seconds *= self.scoring_seconds / expected

    def replanned(self, step_plan: StepPlan, step: int, evaluations_left: int) -> StepPlan:
        """Returns the plan after `step` steps: a new one if the current one would not end in time."""
        if self._training < _FIRST_SECONDS and step < _FIRST_SHARE * step_plan.steps:
            return step_plan
        step_seconds = self._follow_steps()
        # A file is written once more at the end.
        closing = _CLOSING_MARGIN * self.closing_seconds + self.budget.longest_wait + _EXIT_SECONDS
        left = self.budget.left - closing
        # Two evaluations at the same step count as one.
        max_evaluations = max(1, int(max(0.0, left) / max(step_seconds, 1e-9)))
        left -= min(evaluations_left, max_evaluations) * self.evaluation_seconds
        # The time of checkpoints and the like is not measured. It is assumed to continue at the same rate.
        other = self.budget.spent - self._began - self._training - self._evaluating
        seconds = step_seconds * (1 + max(0.0, other) / self._training)
        more = max(1, int(left / seconds + min(0.5, _LATE_SECONDS / seconds)))
        steps = min(step + more, MAX_COUNT)
        off = abs(steps - step_plan.steps) * seconds
        if off <= max(_TOLERANCE_SECONDS, _TOLERANCE_SHARE * left):
            return step_plan
        if self.budget.spent - self._planned < _TOLERANCE_SHARE * left and off < _URGENT_SHARE * left:
            return step_plan
        self._planned = self.budget.spent
        return step_plan.replanned(step, steps)

    def _follow_steps(self) -> float:
        """Returns the current duration of a step, and scales the other estimates when it changes."""
        if not self._steps:
            return 0.0
        now = self._seconds / self._steps
        slower = now / (self._step_seconds or now)
        self._step_seconds = now
        self.score_seconds *= slower
        self.scoring_seconds *= slower
        return now

    def require_time(self) -> None:
        """Makes sure that the budget has time for the work after the last step.

        Raises:
            BudgetError: it does not.
        """
        after = self.closing_seconds + self.evaluation_seconds + _EXIT_SECONDS + self.budget.reserved
        minimum = self.budget.spent + after
        if minimum > self.budget.seconds:
            raise BudgetError(
                f"a budget of {shortest_seconds(self.budget.seconds)} is too short for this text on this machine: "
                "reading it, one step, validation and saving take "
                f"{minimum:.1f} s. Give --budget {1.1 * minimum + 0.5:.0f}s or more."
            )
