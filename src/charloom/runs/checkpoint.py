"""Checkpoints: a training state in a file, to go on from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from charloom.artifacts import read_metadata, read_tensor_file, write_tensor_file
from charloom.errors import ModelFileError
from charloom.models import named_tensors, restored

CHECKPOINT_VERSION = 2

State = TypeVar("State")


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
