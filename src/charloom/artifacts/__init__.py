"""Artifacts: named tensors and JSON in one safetensors file. Knows nothing of networks."""

from charloom.artifacts.tensor_file import (
    METADATA_KEY,
    read_tensor_file,
    require_writable,
    write_tensor_file,
)

__all__ = ["METADATA_KEY", "read_tensor_file", "require_writable", "write_tensor_file"]
