"""One safetensors file: tensors, and a JSON object under the metadata key `charloom`. Nothing is ever unpickled."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from charloom.artifacts.files import write_bytes
from charloom.errors import ModelFileError

METADATA_KEY = "charloom"
_MOST_HEADER_BYTES = 100_000_000  # as of safetensors


def tensor_file_bytes(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> bytes:
    """Returns a file of `tensors` and `metadata`; the same input gives the same bytes."""
    text = json.dumps(metadata, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return save({name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}, {METADATA_KEY: text})


def write_tensor_file(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
    """Writes `tensors` and `metadata` to `path` in one step, whatever stands there.

    Raises:
        OutputError: the file cannot be written; what stood at `path` is as it was.
    """
    write_bytes(path, tensor_file_bytes(tensors, metadata))


def made_with(path: Path, key: str) -> bool:
    """Returns whether the file at `path` has charloom's metadata, with a field `key`; its tensors are not looked at.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _MOST_HEADER_BYTES:
            return False
        header = file.read(length)
    try:
        metadata = json.loads(json.loads(header)["__metadata__"][METADATA_KEY])
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
    return len(header) == length and isinstance(metadata, dict) and key in metadata


def read_tensor_file(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns the tensors and the metadata of the file at `path`.

    Raises:
        ModelFileError: the file is missing, unreadable, damaged, or has no metadata of charloom's.
    """
    with _opened(path) as file:
        names = file.keys()  # of the tensors; the file is no mapping
        tensors = {name: file.get_tensor(name) for name in names}
        text = (file.metadata() or {}).get(METADATA_KEY)
    return tensors, _parsed(path, text)


def read_metadata(path: Path) -> dict[str, Any]:
    """Returns the metadata of the file at `path`, without reading its tensors.

    Raises:
        ModelFileError: as of `read_tensor_file`; what is wrong inside a tensor is not looked for.
    """
    with _opened(path) as file:
        text = (file.metadata() or {}).get(METADATA_KEY)
    return _parsed(path, text)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise ModelFileError(f"{path} is no file. `charloom train` makes model files.")
        with open(path, "rb"):  # for the system's own words where it cannot be read
            pass
        with safe_open(path, framework="numpy") as file:
            yield file
    except OSError as error:
        reason = error.strerror or str(error)
        raise ModelFileError(f"cannot read {path}: {reason}. `charloom train` makes model files.") from error
    except (SafetensorError, AttributeError, TypeError, ValueError) as error:
        raise ModelFileError(
            f"{path} is no model file, or a damaged one ({str(error)[:200]}). Train it again, or copy it anew."
        ) from error


def _parsed(path: Path, text: str | None) -> dict[str, Any]:
    if text is None:
        raise ModelFileError(f"{path} is a safetensors file, but not charloom's: its metadata has no '{METADATA_KEY}'.")
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} is damaged: its metadata is no JSON ({error}).") from error
    if not isinstance(metadata, dict):
        raise ModelFileError(f"{path} is damaged: its metadata is no JSON object.")
    return metadata
