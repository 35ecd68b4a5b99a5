"""The native operations: every function that the library exports, its types, and checks of its arguments.

Callers in Python check shapes here, for readable errors. The library checks them again, and also checks the ids
(`cpp/checks.h`).
"""

import ctypes
from collections.abc import Mapping
from typing import Any

import numpy as np

from charloom.cell_facts import CELL_FACTS

_KERNELS = *(facts.name for facts in CELL_FACTS.values() if facts.native_id is not None), "dense"
HANDLERS = tuple(f"{kernel}_{direction}" for kernel in _KERNELS for direction in ("forward", "backward"))
"""The functions that XLA calls."""

_MAX_MESSAGE_BYTES = 200
_pointer, _status = ctypes.c_void_p, ctypes.c_int
_message = ctypes.c_char_p, ctypes.c_size_t
FUNCTIONS: Mapping[str, tuple[Any, tuple[Any, ...]]] = {
    "use_threads": (None, (ctypes.c_int,)),
    "bfloat16_instructions": (ctypes.c_int, ()),
    "new_generator": (_status, (ctypes.c_int, ctypes.c_int, _pointer, ctypes.POINTER(_pointer), *_message)),
    "run_generator": (_status, (_pointer, _pointer, _pointer, *_message)),
    "delete_generator": (None, (_pointer,)),
    "size_of": (ctypes.c_size_t, (ctypes.c_char_p,)),
}
"""The functions that Python calls through ctypes, with the types of their results and arguments."""

_NO_MEMORY, _WRONG_ARGUMENT = 1, 2


def declare(library: ctypes.CDLL) -> None:
    """Sets the types of the library's functions for ctypes."""
    for name, (result, arguments) in FUNCTIONS.items():
        function = getattr(library, f"charloom_{name}")
        function.restype, function.argtypes = result, arguments


def call(function: Any, *arguments: Any) -> None:
    """Calls a function of the library that returns a status.

    Raises:
        ValueError: an argument is wrong. Nothing was read.
        MemoryError: there is not enough memory.
    """
    message = ctypes.create_string_buffer(_MAX_MESSAGE_BYTES)
    status = function(*arguments, message, _MAX_MESSAGE_BYTES)
    if not status:
        return
    reason = message.value.decode("utf-8", "replace")
    if status == _NO_MEMORY:
        raise MemoryError("not enough memory for the native kernels")
    if status == _WRONG_ARGUMENT:
        raise ValueError(f"native kernels: {reason}")
    raise RuntimeError(f"native kernels failed: {reason}")


def require_array(name: str, array: Any, shape: tuple[int, ...], dtype: Any) -> None:
    """Checks the shape and type of a NumPy or JAX array.

    Raises:
        ValueError: the shape or type is wrong.
    """
    if array.shape != shape or array.dtype != dtype:
        wanted = f"the kernels read {np.dtype(dtype)} of shape {shape}"
        raise ValueError(f"{name} is {array.dtype} of shape {array.shape}, but {wanted}")
