"""How long to train when nobody says, how often to evaluate, and the learning rate of each update."""

import numpy as np
from jaxtyping import Float32

from charloom.settings import TrainingSettings

_DEFAULT_EPOCHS = 10
_LEAST_UPDATES = 1_000
_MOST_UPDATES = 10_000
_MOST_EVALUATIONS = 20
_EVALUATION_SHARE = 0.1
# A gradient costs about twice the forward pass that an evaluation needs.
_TRAINING_COST = 3


def default_updates(updates_an_epoch: int) -> int:
    """Returns the updates of a run that names none: 10 epochs, but at least 1,000 and at most 10,000 updates."""
    return min(max(_DEFAULT_EPOCHS * updates_an_epoch, _LEAST_UPDATES), _MOST_UPDATES)


def evaluation_interval(updates: int, characters_per_update: int, validation_characters: int) -> int:
    """Returns the updates between two evaluations, the last of which is at the end.

    At most 20 evaluations, and at most about a tenth of the training's time. By counts and not by the
    clock, so that the same run keeps the same model.
    """
    cost_in_updates = validation_characters / _TRAINING_COST / characters_per_update
    affordable = int(_EVALUATION_SHARE * updates / cost_in_updates)
    return -(-updates // max(1, min(_MOST_EVALUATIONS, affordable)))


def learning_rates(
    settings: TrainingSettings, first_update: int, count: int, updates: int
) -> Float32[np.ndarray, " count"]:
    """Returns the rate of each of `count` updates from `first_update` on, of `updates` in all.

    With u counted from 0, W warm-up updates of N: rate (u + 1) / W of the highest while u < W, then
    all of it, or with "cosine" (1 + cos(pi (u - W) / (N - W))) / 2 of it, which reaches zero at u = N.
    Source: Loshchilov and Hutter, 2017 (cosine annealing).
    """
    update = np.arange(first_update, first_update + count)
    warmup = int(settings.warmup * updates)
    rates = np.full(count, settings.learning_rate)
    if settings.schedule == "cosine":
        phase = np.clip((update - warmup) / (updates - warmup), 0, 1)
        rates *= (1 + np.cos(np.pi * phase)) / 2
    rising = update < warmup
    rates[rising] = settings.learning_rate * (update[rising] + 1) / warmup
    return rates.astype(np.float32)
