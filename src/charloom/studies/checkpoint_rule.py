"""Which epochs' states an experiment keeps, as the published code's callbacks did."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Monitor = Literal["loss", "accuracy", "val_loss", "val_accuracy"]


@dataclass(frozen=True, kw_only=True)
class CheckpointRule:
    """Which epochs' states are kept, and under what name.

    Attributes:
        template: the file's name without its suffix, made of an epoch's figures: `epoch`, `loss`, `accuracy`,
            `val_loss` and `val_accuracy`, as in "weights.{epoch:02d}-{val_loss:.2f}".
        monitor: the figure that must be the best so far; None keeps every epoch.
        direction: whether lower or higher is better.

    >>> rule = CheckpointRule(template="best", monitor="loss", direction="min")
    >>> rule.kept([{"loss": 2.0}, {"loss": 1.5}, {"loss": 1.7}])
    1
    """

    template: str
    monitor: Monitor | None = None
    direction: Literal["min", "max"] = "min"

    def name(self, epoch: Mapping[str, float]) -> str:
        """Returns the name of an epoch's file."""
        return f"{self.template.format(**epoch)}.safetensors"

    def kept(self, epochs: Sequence[Mapping[str, float]]) -> int:
        """Returns which of `epochs` is kept last, from 0: the last one, or the first of the best ones; -1 for none."""
        if self.monitor is None:
            return len(epochs) - 1
        sign = 1 if self.direction == "min" else -1
        best = -1
        lowest = math.inf
        for index, epoch in enumerate(epochs):
            if sign * epoch[self.monitor] < lowest:  # never true of what is no number
                best, lowest = index, sign * epoch[self.monitor]
        return best
