"""Checkpoints: a training state in a file, to resume from."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from charloom.artifacts import (
    Output,
    OutputKind,
    has_metadata_field,
    read_metadata,
    read_tensor_file,
    tensor_file_bytes,
)
from charloom.errors import ModelFileError
from charloom.models import named_tensors, restore_tensors

CHECKPOINT_VERSION = 3
CHECKPOINT = OutputKind(
    "checkpoint",
    "checkpoint.safetensors",
    "checkpoint",
    lambda path: has_metadata_field(path, "checkpoint_version"),
    owner="run",
)
"""A checkpoint may replace only another checkpoint."""

State = TypeVar("State")


def write_checkpoint(path: Path, state: Any, progress: Mapping[str, Any]) -> Path:
    """Writes `state`, a tree of arrays, and `progress`, JSON values, atomically; returns the path.

    The path is `path`, or a name next to it if another file has that name.

    Raises:
        OutputError: the file cannot be written.
    """
    tensors = {name: np.asarray(tensor) for name, tensor in named_tensors(state).items()}
    metadata = {
        "checkpoint_version": CHECKPOINT_VERSION,
        "progress": dict(progress),
        "tensors_sha256": _sha256(tensors),
    }
    output = Output(path, CHECKPOINT, is_default=True)
    output.write(tensor_file_bytes(tensors, metadata))
    return output.path


def read_progress(path: Path) -> dict[str, Any]:
    """Returns the progress in a checkpoint, without reading the state.

    Raises:
        ModelFileError: the file is missing, damaged, or not a checkpoint.
    """
    return _progress_of(read_metadata(path), path)


def read_state(path: Path, like: State) -> State:
    """Returns the state in a checkpoint.

    Args:
        path: the file.
        like: a state with the same structure and shapes.

    Raises:
        ModelFileError: the file is missing, damaged, or a checkpoint of another model.
    """
    tensors, metadata = read_tensor_file(path)
    _progress_of(metadata, path)
    state = restore_tensors(like, tensors, path)
    if metadata.get("tensors_sha256") != _sha256(tensors):
        raise ModelFileError(f"{path} is damaged: its tensors do not match their digest.")
    return state


def _progress_of(metadata: Mapping[str, Any], path: Path) -> dict[str, Any]:
    progress = metadata.get("progress")
    if metadata.get("checkpoint_version") != CHECKPOINT_VERSION or not isinstance(progress, dict):
        raise ModelFileError(f"{path} is not a checkpoint that this version can resume from.")
    return progress


def _sha256(tensors: Mapping[str, np.ndarray]) -> str:
    """Returns the digest of the tensors' names and values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + b"\0" + tensors[name].tobytes())
    return digest.hexdigest()
