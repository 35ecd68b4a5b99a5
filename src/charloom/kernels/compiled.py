"""`jax.jit`, as the programs here are compiled that are not part of others."""

from functools import partial

import jax

# LLVM's first level compiles sooner than its third, and what it makes is as fast: the work is in matrix products and in
# native kernels, which are not LLVM's. `python -m benchmarks.compilation` measures both.
OPTIMIZATION_LEVEL = 1

compiled = partial(
    jax.jit,
    compiler_options={
        "xla_backend_optimization_level": OPTIMIZATION_LEVEL,
        # A GPU adds in whatever order its threads come, unless told not to; then it also compiles sooner.
        "xla_gpu_exclude_nondeterministic_ops": True,
    },
)
