"""safetensors files with tensors, and a JSON object under the metadata key `charloom`. Nothing is ever unpickled.

A file is read into memory, not mapped. A mapped file would crash the process if another program truncated it.
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
from charloom.artifacts.structures import MAX_JSON_BYTES, convert_json, parse_json
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
    """Returns the bytes of a file with `tensors` and `metadata`. The same input gives the same bytes."""
    text = json.dumps(metadata, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return save({name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}, {METADATA_KEY: text})


def write_tensor_file(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
    """Writes `tensors` and `metadata` to `path` atomically, and replaces any file there.

    Raises:
        OutputError: the file cannot be written. An earlier file at `path` is unchanged.
    """
    write_bytes(path, tensor_file_bytes(tensors, metadata))


def has_metadata_field(path: Path, key: str) -> bool:
    """Returns whether the file at `path` has charloom's metadata with a field `key`. Its tensors are not read.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_JSON_BYTES:
            return False
        header = file.read(length)
    try:
        metadata = json.loads(json.loads(header)["__metadata__"][METADATA_KEY])
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
    return len(header) == length and isinstance(metadata, dict) and key in metadata


class _Tensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tensor's entry in the header. `data_offsets` are those of its first byte and of the byte after its last."""

    dtype: str
    shape: Annotated[tuple[Annotated[int, msgspec.Meta(ge=0)], ...], msgspec.Meta(max_length=8)]
    data_offsets: tuple[int, int]

    @property
    def bytes(self) -> int:
        """The size in bytes of a tensor of this type and shape."""
        return math.prod(self.shape) * np.dtype(_TYPES[self.dtype]).itemsize


def read_tensor_file(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Returns the tensors and the metadata of the file at `path`. The tensors are read-only.

    Raises:
        ModelFileError: the file is missing, unreadable, damaged, changed while it was read, or without charloom's
            metadata.
    """
    with _opened(path) as file:
        before = os.fstat(file.fileno())
        entries, text, begin = _header(path, file, before.st_size)
        metadata = _metadata(path, text)
        data = _read(path, file, before.st_size - begin)
        after = os.fstat(file.fileno())
        if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise _changed(path)
    try:
        tensors = {
            name: data[slice(*one.data_offsets)].view(_TYPES[one.dtype]).reshape(one.shape)
            for name, one in entries.items()
        }
    except (ValueError, OverflowError) as error:  # an empty tensor with dimensions that NumPy cannot represent
        raise _damaged(path, str(error)) from None
    return tensors, metadata


def read_metadata(path: Path) -> dict[str, Any]:
    """Returns the metadata of the file at `path`, without reading its tensors.

    Raises:
        ModelFileError: see `read_tensor_file`. The tensors' bytes are not checked.
    """
    with _opened(path) as file:
        _, text, _ = _header(path, file, os.fstat(file.fileno()).st_size)
    return _metadata(path, text)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Opens a regular file. A pipe or a device is refused without waiting for it."""
    shown = one_line(str(path))
    try:
        with open(path, "rb", buffering=0, opener=open_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ModelFileError(f"{shown} is not a file. `charloom train` makes model files.")
            yield file
    except OSError as error:
        reason = error.strerror or str(error)
        raise ModelFileError(f"cannot read {shown}: {reason}. `charloom train` makes model files.") from error
    except ValueError as error:  # the path has a null byte
        raise ModelFileError(f"cannot read {shown}: {error}. `charloom train` makes model files.") from error
    except MemoryError:
        raise ModelFileError(f"cannot read {shown}: it does not fit into memory.") from None


def _header(path: Path, file: IO[bytes], size: int) -> tuple[dict[str, _Tensor], str | None, int]:
    """Returns each tensor's entry in the header, charloom's metadata, and the offset of the tensors' bytes.

    The tensors must fill the file exactly from the header to the last byte, so they are never larger than the file.
    """
    beginning = file.read(8)
    if len(beginning) < 8:
        raise _damaged(path, "it is shorter than a header")
    (length,) = struct.unpack("<Q", beginning)
    if length > size - 8:
        raise _damaged(path, f"its header should be {length:,} bytes long, but the file has {size:,} bytes")
    if length > MAX_JSON_BYTES:
        raise _damaged(path, f"its header is {length:,} bytes long, more than the maximum of {MAX_JSON_BYTES:,}")
    header = parse_json(_read(path, file, length).tobytes(), f"{path}: its header")
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not a JSON object")
    texts = header.pop("__metadata__", {})
    if not (isinstance(texts, dict) and all(isinstance(text, str) for text in texts.values())):
        raise _damaged(path, "its metadata values are not all strings")
    tensors = {name: convert_json(one, _Tensor, f"{path}: {_shown(name)}") for name, one in header.items()}
    end = 0
    for name, one in sorted(tensors.items(), key=lambda item: item[1].data_offsets):
        if one.dtype not in _TYPES:
            raise _damaged(path, f"{_shown(name)} has the unknown type {_shown(one.dtype)}")
        begin, last = one.data_offsets
        if begin != end or last - begin != one.bytes:
            raise _damaged(path, f"the header gives a wrong position or size for {_shown(name)}")
        end = last
    if end != size - 8 - length:
        raise _damaged(path, f"its tensors should have {end:,} bytes, but have {size - 8 - length:,}")
    return tensors, texts.get(METADATA_KEY), 8 + length


def _read(path: Path, file: IO[bytes], length: int) -> UInt8[np.ndarray, " length"]:
    data = np.empty(length, np.uint8)
    view, done = data.data, 0
    while done < length:
        count = file.readinto(view[done:])  # type: ignore[attr-defined]  # unbuffered files have it, but not their type
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
    return ModelFileError(
        f"cannot read {one_line(str(path))}: it changed while it was read. Try again when it is complete."
    )


def _metadata(path: Path, text: str | None) -> dict[str, Any]:
    shown = one_line(str(path))
    if text is None:
        raise ModelFileError(
            f"{shown} is a safetensors file, but not a charloom model: its metadata has no '{METADATA_KEY}'. "
            "`charloom train` makes model files."
        )
    metadata = parse_json(text, f"{path}: its metadata")
    if not isinstance(metadata, dict):
        raise ModelFileError(f"{shown} is damaged: its metadata is not a JSON object.")
    return metadata
