"""Initial weights, distributed as in Keras.

NumPy draws them, because compiling a JAX program would take longer than training a small model.
Without a generator they are JAX zeros, so that `jax.eval_shape` gives a model's shapes without memory for its weights.
"""

import os
import threading
from contextlib import AbstractContextManager

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_BLAS_LOCK = threading.Lock()
_SET_BY_IMPORT = "KMP_DUPLICATE_LIB_OK"  # an environment variable that importing threadpoolctl sets


def uniform(rng: np.random.Generator | None, shape: tuple[int, ...], limit: float) -> Float[Array, "..."]:
    """Returns float32 numbers that are uniform between -limit and limit."""
    if rng is None:
        return jnp.zeros(shape, jnp.float32)
    return jnp.asarray((2 * rng.random(shape, np.float32) - 1) * np.float32(limit))


def glorot_uniform(rng: np.random.Generator | None, shape: tuple[int, int]) -> Float[Array, "input output"]:
    """Returns numbers that are uniform between ±sqrt(6 / (input + output)).

    Source: Glorot and Bengio, 2010, equation 16.
    """
    return uniform(rng, shape, (6 / sum(shape)) ** 0.5)


def orthogonal(rng: np.random.Generator | None, shape: tuple[int, int]) -> Float[Array, "rows columns"]:
    """Returns a uniformly drawn matrix with orthonormal rows or columns, whichever are fewer.

    Source: Saxe, McClelland and Ganguli, 2014; the signs: Mezzadri, 2007, section 5.
    """
    if rng is None:
        return jnp.zeros(shape, jnp.float32)
    # Results must not depend on the number of cores. The limit is the process's, so overlapping ones would remain.
    with _BLAS_LOCK, _one_blas_thread():
        tall, triangle = np.linalg.qr(rng.standard_normal((max(shape), min(shape)), np.float32))
    tall *= np.where(triangle.diagonal() < 0, -1, 1).astype(np.float32)
    return jnp.asarray(tall if shape[0] >= shape[1] else np.ascontiguousarray(tall.T))


def _one_blas_thread() -> AbstractContextManager[object]:
    before = os.environ.get(_SET_BY_IMPORT)
    from threadpoolctl import threadpool_limits

    if before is None:  # leave the host program's environment unchanged
        os.environ.pop(_SET_BY_IMPORT, None)
    limits: AbstractContextManager[object] = threadpool_limits(1, user_api="blas")
    return limits


def zeros(size: int) -> Float[Array, " size"]:
    """Returns float32 zeros without compiling anything."""
    return jnp.asarray(np.zeros(size, np.float32))
