"""The progress of a run at each step, the number of its evaluations, and its learning rates."""

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float32, Float64, Int64

from charloom.settings import TrainingSettings

# Numbers of evaluations, each with the largest share of the training time that they may take.
_AFFORDABLE = ((5, 0.1), (20, 0.03))
# A training step costs about three forward passes; an evaluation needs one.
TRAINING_COST = 3


@dataclass(frozen=True)
class StepPlan:
    """The progress of a run, from 0 at its beginning to 1 at its end.

    A run with a fixed number of steps progresses evenly. A run with a deadline learns on the way how many steps it has
    time for. From each change of the plan, it progresses evenly to its new end.

    Attributes:
        plans: pairs of a step, ascending from 0, and the total number of steps that was planned at that step.

    >>> StepPlan(((0, 100), (50, 60))).progress(np.array([25, 50, 55, 60])).tolist()
    [0.25, 0.5, 0.75, 1.0]
    """

    plans: tuple[tuple[int, int], ...]

    @property
    def steps(self) -> int:
        """Total number of steps in the current plan."""
        return self.plans[-1][1]

    def replanned(self, step: int, steps: int) -> "StepPlan":
        """Returns this plan, changed at `step` to end after `steps` steps."""
        return StepPlan((*(plan for plan in self.plans if plan[0] < step), (step, steps)))

    def until(self, step: int) -> "StepPlan":
        """Returns the plan as it was before `step`."""
        return StepPlan(tuple(plan for plan in self.plans if plan[0] < max(1, step)))

    def progress(self, steps: Int64[np.ndarray, " count"]) -> Float64[np.ndarray, " count"]:
        """Returns the progress after each of `steps` steps.

        With a plan at step u for N steps in all, and progress p at u, each step adds (1 - p) / (N - u).
        """
        begins, ends = np.array(self.plans).T
        plan = np.searchsorted(begins, steps, side="right") - 1
        reached, begin, end = self._reached[plan], begins[plan], ends[plan]
        return np.minimum(reached + (steps - begin) * (1 - reached) / (end - begin), 1.0)

    @cached_property
    def _reached(self) -> Float64[np.ndarray, " plans"]:
        """Progress at the beginning of each plan."""
        reached = [0.0]
        for (begin, end), (step, _) in itertools.pairwise(self.plans):
            reached.append(reached[-1] + (step - begin) * (1 - reached[-1]) / (end - begin))
        return np.array(reached)

    def first_at(self, progress: float, step: int) -> int:
        """Returns the first step after `step` at which the progress reaches `progress`, or the last step."""
        low, high = step + 1, max(self.steps, step + 1)
        while low < high:
            middle = (low + high) // 2
            # Tolerates rounding in the last bits.
            low, high = (
                (low, middle) if self.progress(np.array([middle]))[0] >= progress - 1e-12 else (middle + 1, high)
            )
        return low


def evaluations(steps: int, characters_per_step: int, validation_characters: int) -> int:
    """Returns the number of evaluations of a run, of which the last one is at its end.

    At most 20 evaluations in 3% of the training time, or at most 5 in 10% of it.
    The number depends on counts and not on the clock, so a repeated run keeps the same model.
    """
    cost_in_steps = validation_characters / TRAINING_COST / characters_per_step
    return max(1, *(min(most, steps, int(share * steps / cost_in_steps)) for most, share in _AFFORDABLE))


def learning_rates(
    settings: TrainingSettings, step_plan: StepPlan, first_step: int, count: int
) -> Float32[np.ndarray, " count"]:
    """Returns the learning rate of each of `count` steps, from `first_step` on.

    With progress p before the step and p' after it, and a warm-up until w, the rate is p' / w of the highest rate while
    p < w. After that it is constant, or with "cosine" (1 + cos(pi (p - w) / (1 - w))) / 2 of the highest rate,
    which reaches zero at the end of the run.

    Source: Loshchilov and Hutter, 2017 (cosine annealing).
    """
    progress = step_plan.progress(np.arange(first_step, first_step + count + 1))
    before, after = progress[:-1], progress[1:]
    rates = np.full(count, settings.learning_rate, np.float64)
    if settings.schedule == "cosine":
        phase = np.clip((before - settings.warmup_ratio) / (1 - settings.warmup_ratio), 0, 1)
        rates *= (1 + np.cos(np.pi * phase)) / 2
    rising = before < settings.warmup_ratio
    rates[rising] = settings.learning_rate * np.minimum(1, after[rising] / settings.warmup_ratio)
    return rates.astype(np.float32)
