"""Checkpoints: a training state in a file, to go on from."""

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
"""Files that may be replaced by a checkpoint."""

State = TypeVar("State")


def write_checkpoint(path: Path, state: Any, progress: Mapping[str, Any]) -> Path:
    """Writes `state`, a tree of arrays, and what is to be known of it, JSON values, in one step; returns where.

    That is `path`, or a name beside it where something stands there that is not a checkpoint.

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
    """Returns what was written beside a checkpoint's state, without reading the state.

    Raises:
        ModelFileError: the file is missing, damaged, or no checkpoint.
    """
    return _progress_of(read_metadata(path), path)


def read_state(path: Path, like: State) -> State:
    """Returns the state in a checkpoint.

    Args:
        path: the file.
        like: a state of the same structure and shapes, whatever its values.

    Raises:
        ModelFileError: the file is missing, damaged, or a checkpoint of another model.
    """
    tensors, metadata = read_tensor_file(path)
    _progress_of(metadata, path)
    state = restore_tensors(like, tensors, path)
    if metadata.get("tensors_sha256") != _sha256(tensors):
        raise ModelFileError(f"{path} is damaged: its tensors are not those that were written.")
    return state


def _progress_of(metadata: Mapping[str, Any], path: Path) -> dict[str, Any]:
    progress = metadata.get("progress")
    if metadata.get("checkpoint_version") != CHECKPOINT_VERSION or not isinstance(progress, dict):
        raise ModelFileError(f"{path} is no checkpoint that this version can go on from.")
    return progress


def _sha256(tensors: Mapping[str, np.ndarray]) -> str:
    """Returns the digest of the tensors' names and values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + b"\0" + tensors[name].tobytes())
    return digest.hexdigest()
