"""A time budget: how much of it is spent, and how many steps there is time for."""

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

# A pause of so many seconds or more in which the process computed less than this share of what it usually does was no
# slow step: the machine slept, or the process was stopped. Beside a dozen busy processes it computes a tenth.
_ASLEEP_SECONDS = 3.0
_ASLEEP_SHARE = 0.05
# Less than this does not tell how many cores are at work.
_TELLING_SECONDS = 0.1
# A plan is changed where it would end so much too early or too late: seconds, or a share of what is left; and unless
# it is urgent not before such a share has passed: a long run would have a plan for each of its machine's moods.
_TOLERANCE_SECONDS = 0.25
_TOLERANCE_SHARE = 0.05
_URGENT_SHARE = 0.5
# Training that the estimate of the speed looks back on, half of its weight: seconds, or a share of what is left.
_MEMORY_SECONDS = 3.0
_MEMORY_SHARE = 0.02
_EXIT_SECONDS = 0.4
# What is computed at the end cannot be cut short, and a busy machine may slow it down.
_CLOSING_MARGIN = 1.05
# What is measured in less time than this says little, and is believed only where a plan may end in it.
_FIRST_SECONDS = 0.4
_FIRST_SHARE = 0.125
# A step that would be half over when the time is up is made, unless it would be over so much later.
_LATE_SECONDS = 2.0


class Budget:
    """Seconds that a command may take.

    Time asleep does not count: neither the machine's, nor that in which the process was stopped while it trained.

    Attributes:
        seconds: all of them.
        reserved: of these, for what the caller does afterwards.
        is_training: whether the process computes all the time, so that where it does not it was asleep; before
            training it may wait for a text, a compiler or a disk.
        longest_wait: seconds of the longest `waiting` so far.

    Args:
        seconds: all of them.
        spent: of these, before now.
        reserved: as above.
        clock: seconds that go on evenly.
        worked: seconds that the process has computed, of all its threads.
    """

    def __init__(
        self,
        seconds: float,
        spent: float = 0.0,
        reserved: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        worked: Callable[[], float] = time.process_time,
    ):
        self.seconds = seconds
        self.reserved = reserved
        self.is_training = False
        self.longest_wait = 0.0
        self._spent = spent
        self._clock, self._worked = clock, worked
        self._seen = clock(), worked()
        self._cores = 0.0  # that are at work while it trains, as far as is known

    @property
    def spent(self) -> float:
        """Seconds spent; to be asked every few seconds, for a pause is seen as what lies between two questions."""
        now, worked = self._clock(), self._worked()
        passed, computed = now - self._seen[0], worked - self._seen[1]
        if self.is_training and passed >= _ASLEEP_SECONDS and computed < _ASLEEP_SHARE * self._cores * passed:
            passed = computed / self._cores
        elif self.is_training and passed > _TELLING_SECONDS:
            # Halfway to what is seen, so that a moment of waiting does not tell.
            self._cores = (self._cores + computed / passed) / 2 if self._cores else computed / passed
        self._spent += passed
        self._seen = now, worked
        return self._spent

    def go_on_from(self, spent: float) -> None:
        """Adds what an earlier process spent."""
        self._spent += spent

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts all of a wait, such as for a disk: it is no sleep."""
        began, trained = self.spent, self.is_training
        self.is_training = False
        try:
            yield
        finally:
            self.longest_wait = max(self.longest_wait, self.spent - began)
            self.is_training = trained

    @property
    def left(self) -> float:
        """Seconds left; below zero where too many are spent."""
        return self.seconds - self.reserved - self.spent


@dataclass
class Deadline:
    """Plans how many steps a run has time for, from what they take as it goes on.

    Attributes:
        budget: what the whole run may take.
        score_seconds: of the kept model's score, after training.
        scoring_seconds: of what an evaluation scores.
        evaluations_after: how many times that is scored once more after training.
        measure_score: measures again, by a part of it, what the score of such a network takes; None for never.

    The seconds are at first what was measured before training. They follow the speed of steps, that of evaluations,
    and what is measured again, so that they hold under the load that there is.
    """

    budget: Budget
    score_seconds: float
    scoring_seconds: float
    evaluations_after: int = 0
    measure_score: Callable[[Network], float] | None = None
    _seconds: float = field(default=0.0, init=False)  # of the last steps, the more weight the later they are
    _steps: float = field(default=0.0, init=False)
    _began: float = field(default=0.0, init=False)
    _training: float = field(default=0.0, init=False)
    _evaluating: float = field(default=0.0, init=False)
    _aftermath: tuple[float, float] = field(default=(0.0, 0.0), init=False)  # of the last two evaluations
    _step_seconds: float | None = field(default=None, init=False)  # when these seconds are what they are
    _planned: float = field(default=-math.inf, init=False)  # seconds spent when the run was last planned

    @property
    def closing_seconds(self) -> float:
        """What is computed after the last step and its evaluation."""
        return self.score_seconds + self.evaluations_after * self.scoring_seconds

    @property
    def evaluation_seconds(self) -> float:
        """What an evaluation takes, with what regularly comes of it: a file, a sample.

        What took long once only, such as a compiler or a disk, is not expected again.
        """
        return self.scoring_seconds + min(self._aftermath)

    def dispatched(self, steps: int, seconds: float) -> None:
        """Takes note of what `steps` took."""
        if not self._training:
            self._began = self.budget.spent - seconds
            self.budget.is_training = True
        old = 0.5 ** (seconds / max(_MEMORY_SECONDS, _MEMORY_SHARE * self.budget.left))
        self._seconds = old * self._seconds + seconds
        self._steps = old * self._steps + steps
        self._training += seconds

    def evaluated(self, seconds: float, scoring_seconds: float, network: Network) -> None:
        """Takes note of what the evaluation of `network` took: with whatever came of it, and its scoring alone.

        What is measured is believed by halves: a machine that became busy has already told so by its steps.
        """
        self._follow_steps()
        is_known, expected = self._evaluating > 0, self.scoring_seconds
        self.scoring_seconds = (expected + scoring_seconds) / 2 if is_known else scoring_seconds
        self._aftermath = self._aftermath[1], seconds - scoring_seconds
        self._evaluating += seconds
        if self.measure_score is not None:
            measured = self.measure_score(network)
            self.score_seconds = (self.score_seconds + measured) / 2 if is_known else measured
        elif expected > 0:
            self.score_seconds *= self.scoring_seconds / expected

    def replanned(self, step_plan: StepPlan, step: int, evaluations_left: int) -> StepPlan:
        """Returns the plan after `step` steps, another where this one would not end in time."""
        if self._training < _FIRST_SECONDS and step < _FIRST_SHARE * step_plan.steps:
            return step_plan
        step_seconds = self._follow_steps()
        # Once more something is written.
        closing = _CLOSING_MARGIN * self.closing_seconds + self.budget.longest_wait + _EXIT_SECONDS
        left = self.budget.left - closing
        # Evaluations that fall on one step are one.
        most = max(1, int(max(0.0, left) / max(step_seconds, 1e-9)))
        left -= min(evaluations_left, most) * self.evaluation_seconds
        # Checkpoints and the like are on nobody's account: they go on as they went.
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
        """Returns what a step takes now; where the machine has become slower, the rest takes longer as well."""
        if not self._steps:
            return 0.0
        now = self._seconds / self._steps
        slower = now / (self._step_seconds or now)
        self._step_seconds = now
        self.score_seconds *= slower
        self.scoring_seconds *= slower
        return now

    def require_time(self) -> None:
        """Makes sure that there is time for what comes after the last step.

        Raises:
            BudgetError: there is none.
        """
        after = self.closing_seconds + self.evaluation_seconds + _EXIT_SECONDS + self.budget.reserved
        least = self.budget.spent + after
        if least > self.budget.seconds:
            raise BudgetError(
                f"a budget of {shortest_seconds(self.budget.seconds)} is too short for this text on this machine: to "
                "read it, to make one step, to validate and to save take "
                f"{least:.1f} s. Give --budget {1.1 * least + 0.5:.0f}s or more."
            )
