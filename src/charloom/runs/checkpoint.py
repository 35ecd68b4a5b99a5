"""Checkpoints: a training state in a file, to go on from; and which epochs' are kept."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from charloom.artifacts import read_metadata, read_tensor_file, write_tensor_file
from charloom.errors import ModelFileError
from charloom.models import named_tensors, restored

CHECKPOINT_VERSION = 2

State = TypeVar("State")

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


def write_checkpoint(path: Path, state: Any, progress: Mapping[str, Any]) -> None:
    """Writes `state`, a tree of arrays, and what is to be known of it, JSON values, in one step.

    Raises:
        OutputError: the file cannot be written.
    """
    tensors = {name: np.asarray(tensor) for name, tensor in named_tensors(state).items()}
    write_tensor_file(path, tensors, {"checkpoint_version": CHECKPOINT_VERSION, "progress": dict(progress)})


def read_progress(path: Path) -> dict[str, Any]:
    """Returns what was written beside a checkpoint's state, without reading the state.

    Raises:
        ModelFileError: the file is missing, damaged, or no checkpoint.
    """
    metadata = read_metadata(path)
    progress = metadata.get("progress")
    if metadata.get("checkpoint_version") != CHECKPOINT_VERSION or not isinstance(progress, dict):
        raise ModelFileError(f"{path} is no checkpoint that this version can go on from.")
    return progress


def read_state(path: Path, like: State) -> State:
    """Returns the state in a checkpoint.

    Args:
        path: the file.
        like: a state of the same structure and shapes, whatever its values.

    Raises:
        ModelFileError: the file is missing, damaged, or a checkpoint of another model.
    """
    tensors, _ = read_tensor_file(path)
    return restored(like, tensors, path)
