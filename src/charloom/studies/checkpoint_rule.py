"""Rules for which checkpoints an experiment keeps, like the checkpoint callbacks in the published code."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Monitor = Literal["loss", "accuracy", "val_loss", "val_accuracy"]


@dataclass(frozen=True, kw_only=True)
class CheckpointRule:
    """Which epochs get a checkpoint, and under what name.

    Attributes:
        template: file name without the suffix. It can contain the figures of an epoch (`epoch`, `loss`, `accuracy`,
            `val_loss`, `val_accuracy`), as in "weights.{epoch:02d}-{val_loss:.2f}".
        monitor: figure that must be the best so far. None keeps every epoch.
        direction: "min" if lower values are better, "max" if higher ones are.

    >>> rule = CheckpointRule(template="best", monitor="loss", direction="min")
    >>> rule.kept([{"loss": 2.0}, {"loss": 1.5}, {"loss": 1.7}])
    1
    """

    template: str
    monitor: Monitor | None = None
    direction: Literal["min", "max"] = "min"

    def name(self, epoch: Mapping[str, float]) -> str:
        """Returns the file name of an epoch's checkpoint."""
        return f"{self.template.format(**epoch)}.safetensors"

    def kept(self, epochs: Sequence[Mapping[str, float]]) -> int:
        """Returns the index of the last epoch that is kept: the last one, or the first best one; -1 if none is."""
        if self.monitor is None:
            return len(epochs) - 1
        sign = 1 if self.direction == "min" else -1
        best = -1
        lowest = math.inf
        for index, epoch in enumerate(epochs):
            if sign * epoch[self.monitor] < lowest:  # never true for NaN
                best, lowest = index, sign * epoch[self.monitor]
        return best
