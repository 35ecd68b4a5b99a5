"""Artifacts: files written in one step, and named tensors with JSON in one of them. Knows nothing of networks."""

from charloom.artifacts.files import (
    LOCK_FILE,
    alone_in,
    cannot_write,
    is_unfinished,
    make_folder,
    remove_unfinished,
    replacing,
    write_bytes,
)
from charloom.artifacts.output_paths import NO_INPUTS, InputFiles, Output, OutputKind, remove_own
from charloom.artifacts.reading import open_without_waiting, read_regular_file
from charloom.artifacts.structures import parsed_json, structured, with_integers
from charloom.artifacts.tensor_file import (
    METADATA_KEY,
    made_with,
    read_metadata,
    read_tensor_file,
    tensor_file_bytes,
    write_tensor_file,
)

__all__ = [
    "LOCK_FILE",
    "METADATA_KEY",
    "NO_INPUTS",
    "InputFiles",
    "Output",
    "OutputKind",
    "alone_in",
    "cannot_write",
    "is_unfinished",
    "made_with",
    "make_folder",
    "open_without_waiting",
    "parsed_json",
    "read_metadata",
    "read_regular_file",
    "read_tensor_file",
    "remove_own",
    "remove_unfinished",
    "replacing",
    "structured",
    "tensor_file_bytes",
    "with_integers",
    "write_bytes",
    "write_tensor_file",
]
