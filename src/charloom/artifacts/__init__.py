"""Artifacts: files that are written atomically, and tensor files with JSON metadata. Knows nothing about networks."""

from charloom.artifacts.files import (
    LOCK_FILE,
    atomic_write,
    cannot_write,
    is_unfinished,
    lock_folder,
    make_folder,
    remove_unfinished,
    write_bytes,
)
from charloom.artifacts.output_paths import NO_INPUTS, InputFiles, Output, OutputKind, remove_own
from charloom.artifacts.reading import open_without_waiting, read_regular_file
from charloom.artifacts.structures import convert_json, parse_json, with_integers
from charloom.artifacts.tensor_file import (
    METADATA_KEY,
    has_metadata_field,
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
    "atomic_write",
    "cannot_write",
    "convert_json",
    "has_metadata_field",
    "is_unfinished",
    "lock_folder",
    "make_folder",
    "open_without_waiting",
    "parse_json",
    "read_metadata",
    "read_regular_file",
    "read_tensor_file",
    "remove_own",
    "remove_unfinished",
    "tensor_file_bytes",
    "with_integers",
    "write_bytes",
    "write_tensor_file",
]
