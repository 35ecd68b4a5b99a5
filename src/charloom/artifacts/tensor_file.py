"""One safetensors file: tensors, and a JSON object under the metadata key `charloom`. Nothing is ever unpickled.

A file is read into memory before it is looked at. A mapped one ends the process if it is cut short meanwhile.
"""

import json
import math
import os
import stat
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any

import msgspec
import numpy as np
from jaxtyping import UInt8
from safetensors.numpy import save

from charloom.artifacts.files import write_bytes
from charloom.artifacts.reading import open_without_waiting
from charloom.artifacts.structures import MOST_JSON_BYTES, parsed_json, structured
from charloom.errors import ModelFileError
from charloom.printable import one_line, quoted

METADATA_KEY = "charloom"
_TYPES = {
    "BOOL": "?",
    "U8": "<u1",
    "I8": "<i1",
    "U16": "<u2",
    "I16": "<i2",
    "F16": "<f2",
    "U32": "<u4",
    "I32": "<i4",
    "F32": "<f4",
    "U64": "<u8",
    "I64": "<i8",
    "F64": "<f8",
}


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
        if length > MOST_JSON_BYTES:
            return False
        header = file.read(length)
    try:
        metadata = json.loads(json.loads(header)["__metadata__"][METADATA_KEY])
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
    return len(header) == length and isinstance(metadata, dict) and key in metadata


class _Tensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a header says of a tensor; the offsets are of its first byte, and of the one behind its last."""

    dtype: str
    shape: Annotated[tuple[Annotated[int, msgspec.Meta(ge=0)], ...], msgspec.Meta(max_length=8)]
    data_offsets: tuple[int, int]

    @property
    def bytes(self) -> int:
        """How long a tensor of this type and shape is."""
        return math.prod(self.shape) * np.dtype(_TYPES[self.dtype]).itemsize


def read_tensor_file(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns the tensors and the metadata of the file at `path`; the tensors are read-only.

    Raises:
        ModelFileError: the file is missing, unreadable, damaged, changes meanwhile, or has no metadata of charloom's.
    """
    with _opened(path) as file:
        before = os.fstat(file.fileno())
        described, text, begin = _header(path, file, before.st_size)
        metadata = _metadata(path, text)
        data = _read(path, file, before.st_size - begin)
        after = os.fstat(file.fileno())
        if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise _changed(path)
    try:
        tensors = {
            name: data[slice(*one.data_offsets)].view(_TYPES[one.dtype]).reshape(one.shape)
            for name, one in described.items()
        }
    except (ValueError, OverflowError) as error:  # of nothing, with sides that are too long even for that
        raise _damaged(path, str(error)) from None
    return tensors, metadata


def read_metadata(path: Path) -> dict[str, Any]:
    """Returns the metadata of the file at `path`, without reading its tensors.

    Raises:
        ModelFileError: as of `read_tensor_file`; what is wrong inside a tensor is not looked for.
    """
    with _opened(path) as file:
        _, text, _ = _header(path, file, os.fstat(file.fileno()).st_size)
    return _metadata(path, text)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file; what is none (a pipe, a device) is refused without waiting for it."""
    shown = one_line(str(path))
    try:
        with open(path, "rb", buffering=0, opener=open_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ModelFileError(f"{shown} is not a file. `charloom train` makes model files.")
            yield file
    except OSError as error:
        reason = error.strerror or str(error)
        raise ModelFileError(f"cannot read {shown}: {reason}. `charloom train` makes model files.") from error
    except ValueError as error:  # a null byte in its name
        raise ModelFileError(f"cannot read {shown}: {error}. `charloom train` makes model files.") from error
    except MemoryError:
        raise ModelFileError(f"cannot read {shown}: it does not fit into memory.") from None


def _header(path: Path, file: IO[bytes], size: int) -> tuple[dict[str, _Tensor], str | None, int]:
    """Returns what the header says of each tensor, charloom's metadata, and where the tensors' bytes begin.

    The tensors fill what is behind the header to the last byte, so they are no larger than the file.
    """
    beginning = file.read(8)
    if len(beginning) < 8:
        raise _damaged(path, "it is shorter than a header")
    (length,) = struct.unpack("<Q", beginning)
    if length > size - 8:
        raise _damaged(path, f"its header would be {length:,} bytes long, and the file is {size:,}")
    if length > MOST_JSON_BYTES:
        raise _damaged(path, f"its header is {length:,} bytes long")
    header = parsed_json(_read(path, file, length).tobytes(), f"{path}: its header")
    if not isinstance(header, dict):
        raise _damaged(path, "its header is no JSON object")
    texts = header.pop("__metadata__", {})
    if not (isinstance(texts, dict) and all(isinstance(text, str) for text in texts.values())):
        raise _damaged(path, "its metadata are not texts by name")
    tensors = {name: structured(one, _Tensor, f"{path}: {_shown(name)}") for name, one in header.items()}
    end = 0
    for name, one in sorted(tensors.items(), key=lambda item: item[1].data_offsets):
        if one.dtype not in _TYPES:
            raise _damaged(path, f"{_shown(name)} is of the type {_shown(one.dtype)}")
        begin, last = one.data_offsets
        if begin != end or last - begin != one.bytes:
            raise _damaged(path, f"{_shown(name)} is not where, or not as long as, the header says")
        end = last
    if end != size - 8 - length:
        raise _damaged(path, f"its tensors should be {end:,} bytes long, and are {size - 8 - length:,}")
    return tensors, texts.get(METADATA_KEY), 8 + length


def _read(path: Path, file: IO[bytes], length: int) -> UInt8[np.ndarray, " length"]:
    data = np.empty(length, np.uint8)
    view, done = data.data, 0
    while done < length:
        count = file.readinto(view[done:])  # type: ignore[attr-defined]  # unbuffered files have it; IO does not say so
        if not count:
            raise _changed(path)
        done += count
    data.flags.writeable = False
    return data


def _shown(name: str) -> str:
    return quoted(name, 100)


def _damaged(path: Path, why: str) -> ModelFileError:
    return ModelFileError(
        f"{one_line(str(path))} is not a model file, or it is damaged ({why}). Train it again, or copy it again."
    )


def _changed(path: Path) -> ModelFileError:
    return ModelFileError(f"cannot read {one_line(str(path))}: it changed meanwhile. Read it again once it is written.")


def _metadata(path: Path, text: str | None) -> dict[str, Any]:
    shown = one_line(str(path))
    if text is None:
        raise ModelFileError(
            f"{shown} is a safetensors file, but not charloom's: its metadata has no '{METADATA_KEY}'."
        )
    metadata = parsed_json(text, f"{path}: its metadata")
    if not isinstance(metadata, dict):
        raise ModelFileError(f"{shown} is damaged: its metadata is no JSON object.")
    return metadata
