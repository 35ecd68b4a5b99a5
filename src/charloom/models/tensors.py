"""Pytrees as named tensors, as they are stored in files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from charloom.errors import ModelFileError
from charloom.kernels import own_settings

Tree = TypeVar("Tree")


def named_tensors(tree: Any) -> dict[str, Any]:
    """Returns the arrays of `tree` by name, such as `cells.0.recurrent_kernel`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(tuple(keys), simple=True, separator="."): leaf for keys, leaf in leaves}


def restore_tensors(like: Tree, tensors: Mapping[str, np.ndarray], path: Path) -> Tree:
    """Returns a tree with the structure of `like` and the values of `tensors`.

    Args:
        like: a tree of arrays, or only of their shapes and types.
        tensors: must have the same names as `named_tensors(like)`.
        path: the file that the tensors come from, for error messages.

    Raises:
        ModelFileError: a tensor is missing or unknown, or has the wrong shape or type.
        ForkedError: this process was forked from one that had already used JAX.
    """
    named = named_tensors(like)
    for name in named:
        if name not in tensors:
            raise ModelFileError(f"{path}: tensor '{name}' is missing. The file was changed after it was written.")
    for name, tensor in tensors.items():
        if name not in named:
            raise ModelFileError(
                f"{path}: tensor '{name}' does not belong to this model. The file was changed after it was written."
            )
        if tensor.shape != named[name].shape or tensor.dtype != named[name].dtype:
            raise ModelFileError(
                f"{path}: '{name}' is {tensor.dtype} of shape {tensor.shape}, its config says "
                f"{named[name].dtype} of {named[name].shape}. The file was changed after it was written."
            )
    with own_settings():
        # `jax.numpy.asarray` would compile a program for each shape.
        leaves = [jax.device_put(tensors[name], may_alias=False) for name in named]
    restored_tree: Tree = jax.tree.unflatten(jax.tree.structure(like), leaves)
    return restored_tree
