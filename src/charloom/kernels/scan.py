"""What the sequence kernels share: the loop over steps, and resets."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

# A short loop over few numbers is unrolled: XLA fuses across steps, and a tiny network's update takes half the time.
# Larger networks only lose by it.
_UNROLLED_STEPS = 8
_UNROLLED_ELEMENTS = 1024

Carry = TypeVar("Carry")


def scan_steps(
    step: Callable[[Carry, Any], tuple[Carry, Any]], carry: Carry, inputs: Any, *, reverse: bool = False
) -> tuple[Carry, Any]:
    """Returns the last carry and the stacked outputs of `step` over the inputs' first axis, which is time."""
    time, *elements = jax.tree.leaves(inputs)[0].shape
    is_short = time <= _UNROLLED_STEPS and math.prod(elements) <= _UNROLLED_ELEMENTS
    return lax.scan(step, carry, inputs, reverse=reverse, unroll=is_short)


def zeroed(state: Float[Array, "*batch hidden"], resets: Bool[Array, "*batch"]) -> Float[Array, "*batch hidden"]:
    """Returns `state` with zeros in the marked rows, also where it had become NaN."""
    return jnp.where(resets[..., None], 0, state)
