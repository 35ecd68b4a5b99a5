"""A time budget: how much of it is spent, and how many updates there is time for."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from charloom.errors import BudgetError
from charloom.training.schedule import Pace
from charloom.units import shortest_seconds

# A pause of so many seconds or more in which the process computed less than this share of what it usually does was no
# slow update: the machine slept, or the process was stopped.
_ASLEEP_SECONDS = 3.0
_ASLEEP_SHARE = 0.2
# Less than this does not tell how many cores are at work.
_TELLING_SECONDS = 0.1
# A plan is changed where it would end so much too early or too late: seconds, or a share of what is left.
_TOLERANCE_SECONDS = 0.25
_TOLERANCE_SHARE = 0.05
# Seconds of training that the estimate of the speed looks back on: half of its weight.
_MEMORY_SECONDS = 3.0
_EXIT_SECONDS = 0.6
# What is measured in less time than this says little.
_FIRST_SECONDS = 0.4


class Budget:
    """Seconds that a command may take.

    Time asleep does not count: neither the machine's, nor that in which the process was stopped while it trained.

    Attributes:
        seconds: all of them.
        is_training: whether the process computes all the time, so that where it does not it was asleep; before
            training it may wait for a text, a compiler or a disk.

    Args:
        seconds: all of them.
        spent: of these, before now.
        clock: seconds that go on evenly.
        worked: seconds that the process has computed, of all its threads.
    """

    def __init__(
        self,
        seconds: float,
        spent: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        worked: Callable[[], float] = time.process_time,
    ):
        self.seconds = seconds
        self.is_training = False
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

    @property
    def left(self) -> float:
        """Seconds left; below zero where too many are spent."""
        return self.seconds - self.spent


@dataclass
class Deadline:
    """Plans how many updates a run has time for, from what they take as it goes on.

    Attributes:
        budget: what the whole run may take.
        closing_seconds: what comes after the last update and its evaluation: the kept model's score, its file.
        evaluation_seconds: of one evaluation.
    """

    budget: Budget
    closing_seconds: float
    evaluation_seconds: float
    _seconds: float = field(default=0.0, init=False)  # of the last updates, the more weight the later they are
    _updates: float = field(default=0.0, init=False)
    _first_update_seconds: float | None = field(default=None, init=False)
    _began: float = field(default=0.0, init=False)
    _training: float = field(default=0.0, init=False)
    _evaluating: float = field(default=0.0, init=False)

    def dispatched(self, updates: int, seconds: float) -> None:
        """Takes note of what `updates` took."""
        if not self._training:
            self._began = self.budget.spent - seconds
            self.budget.is_training = True
        old = 0.5 ** (seconds / _MEMORY_SECONDS)
        self._seconds = old * self._seconds + seconds
        self._updates = old * self._updates + updates
        self._training += seconds

    def evaluated(self, seconds: float) -> None:
        """Takes note of what an evaluation took, and whatever came of it."""
        self.evaluation_seconds = seconds if not self._evaluating else (self.evaluation_seconds + seconds) / 2
        self._evaluating += seconds

    def replanned(self, pace: Pace, update: int, evaluations_left: int) -> Pace:
        """Returns the pace after `update` updates, another where this one would not end in time."""
        if self._training < _FIRST_SECONDS:
            return pace
        update_seconds = self._seconds / self._updates
        self._first_update_seconds = self._first_update_seconds or update_seconds
        # Where the machine has become slower, the end takes longer as well.
        slower = max(1.0, update_seconds / self._first_update_seconds)
        closing = slower * (self.closing_seconds + evaluations_left * self.evaluation_seconds) + _EXIT_SECONDS
        left = self.budget.left - closing
        # Checkpoints and the like are on nobody's account: they go on as they went.
        other = self.budget.spent - self._began - self._training - self._evaluating
        seconds = update_seconds * (1 + max(0.0, other) / self._training)
        updates = max(update + 1, update + int(left / seconds))
        off = abs(updates - pace.updates) * seconds
        if off <= max(_TOLERANCE_SECONDS, _TOLERANCE_SHARE * left):
            return pace
        return pace.replanned(update, updates)

    def require_time(self) -> None:
        """Makes sure that there is time for what comes after the last update.

        Raises:
            BudgetError: there is none.
        """
        least = self.budget.spent + self.closing_seconds + self.evaluation_seconds + _EXIT_SECONDS
        if least > self.budget.seconds:
            raise BudgetError(
                f"a budget of {shortest_seconds(self.budget.seconds)} is too short for this text on this machine: to "
                "read it, to make one update, to validate and to save take "
                f"{least:.1f} s. Give --budget {1.1 * least + 0.5:.0f}s or more."
            )
