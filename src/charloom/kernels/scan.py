"""What the sequence kernels share: the loop over time steps, and resets."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

# A short loop over small arrays is unrolled, so that XLA fuses time steps. A training step of a tiny network then takes
# half the time. Larger networks get slower.
_MAX_UNROLLED_STEPS = 8
_MAX_UNROLLED_ELEMENTS = 1024

Carry = TypeVar("Carry")


def scan_steps(
    step: Callable[[Carry, Any], tuple[Carry, Any]], carry: Carry, inputs: Any, *, reverse: bool = False
) -> tuple[Carry, Any]:
    """Returns the last carry and the stacked outputs of `step`, applied along the first axis of the inputs (time)."""
    time, *elements = jax.tree.leaves(inputs)[0].shape
    is_short = time <= _MAX_UNROLLED_STEPS and math.prod(elements) <= _MAX_UNROLLED_ELEMENTS
    return lax.scan(step, carry, inputs, reverse=reverse, unroll=is_short)


def zeroed(state: Float[Array, "*batch hidden"], resets: Bool[Array, "*batch"]) -> Float[Array, "*batch hidden"]:
    """Returns `state` with zeros in rows where `resets` is True, even if they contain NaN."""
    return jnp.where(resets[..., None], 0, state)
