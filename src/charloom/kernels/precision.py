"""Products in float32, or with factors that are rounded to bfloat16. Sums are always float32."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from charloom.settings import Precision

_EXPONENT_BITS, _MANTISSA_BITS = 8, 7


def rounded(values: Float[Array, "*shape"], precision: Precision) -> Float[Array, "*shape"]:
    """Returns the numbers of the precision that are nearest to `values`, with ties to even, as float32."""
    if precision == "float32":
        return values
    # XLA may remove a conversion to bfloat16 that is followed by one back to float32. It keeps this operation.
    return lax.reduce_precision(values, _EXPONENT_BITS, _MANTISSA_BITS)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def product(
    left: Float[Array, "*batch depth"], right: Float[Array, "depth columns"], precision: Precision
) -> Float[Array, "*batch columns"]:
    """Returns left · right. In the products of its gradient, the cotangent is rounded like both factors."""
    return rounded(left, precision) @ rounded(right, precision)


def _forward(left: Array, right: Array, precision: Precision) -> tuple[Array, tuple[Array, Array]]:
    factors = rounded(left, precision), rounded(right, precision)
    return factors[0] @ factors[1], factors


def _backward(precision: Precision, factors: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    left, right = factors
    cotangent = rounded(cotangent, precision)
    return cotangent @ right.T, summed_product(left, cotangent)


def summed_product(
    left: Float[Array, "*batch rows"], right: Float[Array, "*batch columns"]
) -> Float[Array, "rows columns"]:
    """Returns the sum of the outer products of all rows: the gradient of a kernel, as one product."""
    axes = tuple(range(left.ndim - 1))
    return jnp.tensordot(left, right, axes=(axes, axes))


product.defvjp(_forward, _backward)
