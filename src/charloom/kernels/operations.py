"""The native operations: every function that the library exports, how it is called, and what arguments must be.

Whoever calls one checks shapes here first, for an error in Python's words; the library checks them once more, and the
ids, too, which only it reads (`cpp/checks.h`).
"""

import ctypes
from collections.abc import Mapping
from typing import Any

HANDLERS = tuple(f"{part}_{way}" for part in ("lstm", "gru", "elman", "dense") for way in ("forward", "backward"))
"""What XLA calls."""

_PROBLEM_ROOM = 200
_pointer, _status = ctypes.c_void_p, ctypes.c_int
_problem = ctypes.c_char_p, ctypes.c_size_t
FUNCTIONS: Mapping[str, tuple[Any, tuple[Any, ...]]] = {
    "use_threads": (None, (ctypes.c_int,)),
    "new_generator": (_status, (ctypes.c_int, _pointer, ctypes.POINTER(_pointer), *_problem)),
    "run_generator": (_status, (_pointer, _pointer, _pointer, *_problem)),
    "delete_generator": (None, (_pointer,)),
}
"""What Python calls through ctypes: the type of the result and those of the arguments."""

_NO_MEMORY, _WRONG_ARGUMENT = 1, 2


def declare(library: ctypes.CDLL) -> None:
    """Tells ctypes the types of the library's functions."""
    for name, (result, arguments) in FUNCTIONS.items():
        function = getattr(library, f"charloom_{name}")
        function.restype, function.argtypes = result, arguments


def call(function: Any, *arguments: Any) -> None:
    """Calls a function of the library that returns a status.

    Raises:
        ValueError: an argument was wrong; nothing was read.
        MemoryError: there was not enough memory.
    """
    problem = ctypes.create_string_buffer(_PROBLEM_ROOM)
    status = function(*arguments, problem, _PROBLEM_ROOM)
    if not status:
        return
    reason = problem.value.decode("utf-8", "replace")
    if status == _NO_MEMORY:
        raise MemoryError("not enough memory for the native kernels")
    if status == _WRONG_ARGUMENT:
        raise ValueError(f"native kernels: {reason}")
    raise RuntimeError(f"native kernels failed: {reason}")


def require_array(name: str, array: Any, shape: tuple[int, ...], dtype: Any) -> None:
    """Makes sure that an argument, of NumPy or JAX, is as the kernels will read it.

    Raises:
        ValueError: its shape or type is another.
    """
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"{name} is {array.dtype} of shape {array.shape}; the kernels read {dtype} of {shape}")
