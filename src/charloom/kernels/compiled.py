"""`jax.jit`, as the programs here are compiled and called that are not part of others.

The host program may have settings of JAX of its own. They are left alone: what charloom's calls need they carry.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

import jax

from charloom.errors import ForkedError

# LLVM's first level compiles sooner than its third, and what it makes is as fast: the work is in matrix products and in
# native kernels, which are not LLVM's. `python -m benchmarks.compilation` measures both.
OPTIMIZATION_LEVEL = 1

_Result = TypeVar("_Result")

_first_process: int | None = None


def compiled(function: Callable[..., _Result], **options: Any) -> Callable[..., _Result]:
    """Returns `function` as a compiled program, which is called with charloom's settings; `options` are `jax.jit`'s."""
    program = jax.jit(
        function,
        compiler_options={
            "xla_backend_optimization_level": OPTIMIZATION_LEVEL,
            # A GPU adds in whatever order its threads come, unless told not to; then it also compiles sooner.
            "xla_gpu_exclude_nondeterministic_ops": True,
        },
        **options,
    )

    @wraps(function)
    def call(*arguments: Any, **named: Any) -> _Result:
        with own_settings():
            result: _Result = program(*arguments, **named)
            return result

    return call


@contextmanager
def own_settings() -> Iterator[None]:
    """Has JAX compute as charloom's numbers are defined: in 32 bits, with products in full float32.

    A precision that the user has set comes first.

    Raises:
        ForkedError: JAX was started by a process that this one was forked from.
    """
    require_own_process()
    config: Any = jax.config  # untyped
    # By default a GPU rounds what it multiplies to ten bits.
    with jax.enable_x64(False), jax.default_matmul_precision(config.jax_default_matmul_precision or "highest"):
        yield


def require_own_process() -> None:
    """Makes sure that this process is the one that began to compute.

    Raises:
        ForkedError: it was forked from that. JAX's threads are not there then, and would be waited for without end.
    """
    global _first_process
    if _first_process is None:
        _first_process = os.getpid()
    elif _first_process != os.getpid():
        raise ForkedError(
            "this process was forked from one in which charloom had computed, and JAX cannot go on in it. Start "
            "processes with multiprocessing's 'spawn' or 'forkserver' method, or load the model after the fork."
        )
