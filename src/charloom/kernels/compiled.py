"""`jax.jit` with charloom's settings, for top-level programs.

The host program's JAX settings are not changed. charloom's calls use their own settings.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

import jax

from charloom.errors import ForkedError

# LLVM compiles faster at level 1 than at level 3, and the programs are as fast: most time goes into matrix products and
# native kernels, which LLVM does not compile. `python -m benchmarks.compilation` measures both.
OPTIMIZATION_LEVEL = 1

_Result = TypeVar("_Result")

_first_process: int | None = None


def compiled(function: Callable[..., _Result], **options: Any) -> Callable[..., _Result]:
    """Returns `function` compiled by `jax.jit` with `options`, and called with charloom's settings."""
    program = jax.jit(
        function,
        compiler_options={
            "xla_backend_optimization_level": OPTIMIZATION_LEVEL,
            # Otherwise a GPU adds in a random order. This option also makes it compile faster.
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
    """Makes JAX compute in 32 bits, with products in full float32, while the block runs.

    A matrix product precision that the user has set takes precedence.

    Raises:
        ForkedError: this process was forked from one that had already used JAX.
    """
    require_own_process()
    config: Any = jax.config  # untyped
    # By default a GPU rounds the factors of products to ten bits.
    with jax.enable_x64(False), jax.default_matmul_precision(config.jax_default_matmul_precision or "highest"):
        yield


def require_own_process() -> None:
    """Checks that this process was not forked after charloom had used JAX.

    Raises:
        ForkedError: it was. JAX's threads do not exist in a forked process, and waiting for them would never end.
    """
    global _first_process
    if _first_process is None:
        _first_process = os.getpid()
    elif _first_process != os.getpid():
        raise ForkedError(
            "this process was forked from one in which charloom had already used JAX, which cannot continue after a "
            "fork. Start processes with multiprocessing's 'spawn' or 'forkserver' method, or load the model after the "
            "fork."
        )
