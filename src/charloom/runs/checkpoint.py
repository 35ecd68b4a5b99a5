"""Checkpoints: a training state in a file, to go on from; and which epochs' are kept."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from charloom.artifacts import read_tensor_file, write_tensor_file
from charloom.errors import ModelFileError
from charloom.models import named_tensors, restored
from charloom.training import TrainingState

CHECKPOINT_VERSION = 1

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
    >>> rule.keeps([{"loss": 2.0}, {"loss": 1.5}]), rule.keeps([{"loss": 2.0}, {"loss": 2.5}])
    (True, False)
    """

    template: str
    monitor: Monitor | None = None
    direction: Literal["min", "max"] = "min"

    def name(self, epoch: Mapping[str, float]) -> str:
        """Returns the name of an epoch's file."""
        return f"{self.template.format(**epoch)}.safetensors"

    def keeps(self, epochs: Sequence[Mapping[str, float]]) -> bool:
        """Returns whether the last of `epochs` is kept; the first of equal ones is."""
        if self.monitor is None:
            return True
        *before, last = (epoch[self.monitor] * (1 if self.direction == "min" else -1) for epoch in epochs)
        return last < min((value for value in before if not math.isnan(value)), default=math.inf)


def write_checkpoint(path: Path, state: TrainingState, progress: Mapping[str, Any]) -> None:
    """Writes `state` and what is to be known of it, JSON values, in one step.

    Raises:
        OutputError: the file cannot be written.
    """
    tensors = {name: np.asarray(tensor) for name, tensor in named_tensors(state).items()}
    write_tensor_file(path, tensors, {"checkpoint_version": CHECKPOINT_VERSION, "progress": dict(progress)})


def read_checkpoint(path: Path, like: TrainingState) -> tuple[TrainingState, dict[str, Any]]:
    """Returns the state and the progress in the file at `path`.

    Args:
        path: the file.
        like: a state of the same structure and shapes, whatever its values.

    Raises:
        ModelFileError: the file is missing, damaged, no checkpoint, or one of another model.
    """
    tensors, metadata = read_tensor_file(path)
    progress = metadata.get("progress")
    if metadata.get("checkpoint_version") != CHECKPOINT_VERSION or not isinstance(progress, dict):
        raise ModelFileError(f"{path} is no checkpoint that this version can go on from.")
    return restored(like, tensors, path), progress
