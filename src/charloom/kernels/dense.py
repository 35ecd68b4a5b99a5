"""The kernel of the head: an affine map of many rows."""

from jaxtyping import Array, Float

from charloom.kernels import native
from charloom.kernels.choice import uses_native_dense
from charloom.kernels.precision import product
from charloom.settings import Precision


def dense(
    inputs: Float[Array, "*batch input"],
    kernel: Float[Array, "input output"],
    bias: Float[Array, " output"],
    precision: Precision = "float32",
) -> Float[Array, "*batch output"]:
    """Returns inputs · kernel + bias. It is differentiable in all three.

    The outputs of a sequence, time first, use the native kernel.
    """
    if uses_native_dense(inputs, kernel):
        rows = native.dense(inputs.reshape(-1, len(kernel)), kernel, bias, precision)
        return rows.reshape(*inputs.shape[:-1], len(bias))
    return product(inputs, kernel, precision) + bias
