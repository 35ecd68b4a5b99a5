"""How far along a run is after each update, how often it is evaluated, and its learning rates."""

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float32, Float64, Int64

from charloom.settings import TrainingSettings

# Up to so many evaluations, where they take no more than this share of the training's time.
_AFFORDABLE = ((5, 0.1), (20, 0.03))
# A gradient costs about twice the forward pass that an evaluation needs.
_TRAINING_COST = 3


@dataclass(frozen=True)
class Pace:
    """How far along a run is, from 0 at its beginning to 1 at its end.

    A run whose end is known from its beginning goes on evenly. One that must end at a time learns on the way how many
    updates there is time for, and from there on goes on evenly to its new end.

    Attributes:
        plans: pairs of an update, ascending from 0, and of the count of all updates that was planned from it on.

    >>> Pace(((0, 100), (50, 60))).progress(np.array([25, 50, 55, 60])).tolist()
    [0.25, 0.5, 0.75, 1.0]
    """

    plans: tuple[tuple[int, int], ...]

    @property
    def updates(self) -> int:
        """How many updates the run has in all, as it is planned now."""
        return self.plans[-1][1]

    def replanned(self, update: int, updates: int) -> "Pace":
        """Returns the pace that ends after `updates`, which is planned after `update` of them."""
        return Pace((*(plan for plan in self.plans if plan[0] < update), (update, updates)))

    def until(self, update: int) -> "Pace":
        """Returns the pace as it was planned before `update`."""
        return Pace(tuple(plan for plan in self.plans if plan[0] < max(1, update)))

    def progress(self, updates: Int64[np.ndarray, " count"]) -> Float64[np.ndarray, " count"]:
        """Returns how far along the run is after so many updates.

        A plan at update u with N updates in all goes on from where the plan before it came to, p, by
        (1 - p) / (N - u) an update.
        """
        begins, ends = np.array(self.plans).T
        plan = np.searchsorted(begins, updates, side="right") - 1
        reached, begin, end = self._reached[plan], begins[plan], ends[plan]
        return np.minimum(reached + (updates - begin) * (1 - reached) / (end - begin), 1.0)

    @cached_property
    def _reached(self) -> Float64[np.ndarray, " plans"]:
        """How far along the run is where each plan begins."""
        reached = [0.0]
        for (begin, end), (update, _) in itertools.pairwise(self.plans):
            reached.append(reached[-1] + (update - begin) * (1 - reached[-1]) / (end - begin))
        return np.array(reached)

    def first_at(self, progress: float, update: int) -> int:
        """Returns the first update after `update` that comes as far as `progress`, or the last one."""
        low, high = update + 1, max(self.updates, update + 1)
        while low < high:
            middle = (low + high) // 2
            # What should be equal may be a last bit less.
            low, high = (
                (low, middle) if self.progress(np.array([middle]))[0] >= progress - 1e-12 else (middle + 1, high)
            )
        return low


def evaluations(updates: int, characters_per_update: int, validation_characters: int) -> int:
    """Returns how often a run is evaluated, the last time at its end.

    At most 20 times, in about a thirtieth of the training's time; 5 times also in a tenth of it. By counts and
    not by the clock, so that the same run keeps the same model.
    """
    cost_in_updates = validation_characters / _TRAINING_COST / characters_per_update
    return max(1, *(min(most, updates, int(share * updates / cost_in_updates)) for most, share in _AFFORDABLE))


def learning_rates(
    settings: TrainingSettings, pace: Pace, first_update: int, count: int
) -> Float32[np.ndarray, " count"]:
    """Returns the rate of each of `count` updates from `first_update` on.

    With p how far along the run is before the update, and p' after it, and a warm-up up to w: rate p' / w of the
    highest while p < w, then all of it, or with "cosine" (1 + cos(pi (p - w) / (1 - w))) / 2 of it, which
    reaches zero at the run's end.
    Source: Loshchilov and Hutter, 2017 (cosine annealing).
    """
    progress = pace.progress(np.arange(first_update, first_update + count + 1))
    before, after = progress[:-1], progress[1:]
    rates = np.full(count, settings.learning_rate, np.float64)
    if settings.schedule == "cosine":
        phase = np.clip((before - settings.warmup) / (1 - settings.warmup), 0, 1)
        rates *= (1 + np.cos(np.pi * phase)) / 2
    rising = before < settings.warmup
    rates[rising] = settings.learning_rate * np.minimum(1, after[rising] / settings.warmup)
    return rates.astype(np.float32)
