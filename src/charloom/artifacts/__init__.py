"""Artifacts: files written in one step, and named tensors with JSON in one of them. Knows nothing of networks."""

from charloom.artifacts.files import (
    alone_in,
    cannot_write,
    make_folder,
    replacing,
    require_writable_page,
    write_bytes,
)
from charloom.artifacts.reading import read_regular_file
from charloom.artifacts.structures import parsed_json, structured
from charloom.artifacts.tensor_file import (
    METADATA_KEY,
    read_metadata,
    read_tensor_file,
    require_writable,
    write_tensor_file,
)

__all__ = [
    "METADATA_KEY",
    "alone_in",
    "cannot_write",
    "make_folder",
    "parsed_json",
    "read_metadata",
    "read_regular_file",
    "read_tensor_file",
    "replacing",
    "require_writable",
    "require_writable_page",
    "structured",
    "write_bytes",
    "write_tensor_file",
]
