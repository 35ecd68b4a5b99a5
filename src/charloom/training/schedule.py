"""How far along a run is after each step, how often it is evaluated, and its learning rates."""

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float32, Float64, Int64

from charloom.settings import TrainingSettings

# Up to so many evaluations, where they take no more than this share of the training's time.
_AFFORDABLE = ((5, 0.1), (20, 0.03))
# A gradient costs about twice the forward pass that an evaluation needs.
TRAINING_COST = 3


@dataclass(frozen=True)
class StepPlan:
    """How far along a run is, from 0 at its beginning to 1 at its end.

    A run whose end is known from its beginning goes on evenly. One that must end at a time learns on the way how many
    steps there is time for, and from there on goes on evenly to its new end.

    Attributes:
        plans: pairs of a step, ascending from 0, and of the count of all steps that was planned from it on.

    >>> StepPlan(((0, 100), (50, 60))).progress(np.array([25, 50, 55, 60])).tolist()
    [0.25, 0.5, 0.75, 1.0]
    """

    plans: tuple[tuple[int, int], ...]

    @property
    def steps(self) -> int:
        """How many steps the run has in all, as it is planned now."""
        return self.plans[-1][1]

    def replanned(self, step: int, steps: int) -> "StepPlan":
        """Returns the plan that ends after `steps`, which is planned after `step` of them."""
        return StepPlan((*(plan for plan in self.plans if plan[0] < step), (step, steps)))

    def until(self, step: int) -> "StepPlan":
        """Returns the plan as it was planned before `step`."""
        return StepPlan(tuple(plan for plan in self.plans if plan[0] < max(1, step)))

    def progress(self, steps: Int64[np.ndarray, " count"]) -> Float64[np.ndarray, " count"]:
        """Returns how far along the run is after so many steps.

        A plan at step u with N steps in all goes on from where the plan before it came to, p, by
        (1 - p) / (N - u) a step.
        """
        begins, ends = np.array(self.plans).T
        plan = np.searchsorted(begins, steps, side="right") - 1
        reached, begin, end = self._reached[plan], begins[plan], ends[plan]
        return np.minimum(reached + (steps - begin) * (1 - reached) / (end - begin), 1.0)

    @cached_property
    def _reached(self) -> Float64[np.ndarray, " plans"]:
        """How far along the run is where each plan begins."""
        reached = [0.0]
        for (begin, end), (step, _) in itertools.pairwise(self.plans):
            reached.append(reached[-1] + (step - begin) * (1 - reached[-1]) / (end - begin))
        return np.array(reached)

    def first_at(self, progress: float, step: int) -> int:
        """Returns the first step after `step` that comes as far as `progress`, or the last one."""
        low, high = step + 1, max(self.steps, step + 1)
        while low < high:
            middle = (low + high) // 2
            # What should be equal may be a last bit less.
            low, high = (
                (low, middle) if self.progress(np.array([middle]))[0] >= progress - 1e-12 else (middle + 1, high)
            )
        return low


def evaluations(steps: int, characters_per_step: int, validation_characters: int) -> int:
    """Returns how often a run is evaluated, the last time at its end.

    At most 20 times, in about a thirtieth of the training's time; 5 times also in a tenth of it. By counts and
    not by the clock, so that the same run keeps the same model.
    """
    cost_in_steps = validation_characters / TRAINING_COST / characters_per_step
    return max(1, *(min(most, steps, int(share * steps / cost_in_steps)) for most, share in _AFFORDABLE))


def learning_rates(
    settings: TrainingSettings, step_plan: StepPlan, first_step: int, count: int
) -> Float32[np.ndarray, " count"]:
    """Returns the rate of each of `count` steps from `first_step` on.

    With p how far along the run is before the step, and p' after it, and a warm-up up to w: rate p' / w of the
    highest while p < w, then all of it, or with "cosine" (1 + cos(pi (p - w) / (1 - w))) / 2 of it, which
    reaches zero at the run's end.
    Source: Loshchilov and Hutter, 2017 (cosine annealing).
    """
    progress = step_plan.progress(np.arange(first_step, first_step + count + 1))
    before, after = progress[:-1], progress[1:]
    rates = np.full(count, settings.learning_rate, np.float64)
    if settings.schedule == "cosine":
        phase = np.clip((before - settings.warmup) / (1 - settings.warmup), 0, 1)
        rates *= (1 + np.cos(np.pi * phase)) / 2
    rising = before < settings.warmup
    rates[rising] = settings.learning_rate * np.minimum(1, after[rising] / settings.warmup)
    return rates.astype(np.float32)
