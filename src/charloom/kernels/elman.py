"""The Elman network (SimpleRNN in Keras) over a whole sequence, with a hand-written gradient as in `lstm`.

Source: Elman, 1990.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from charloom.kernels import native
from charloom.kernels.activations import CELL_ACTIVATIONS
from charloom.kernels.choice import uses_native_kernel
from charloom.kernels.inputs import LayerInputs
from charloom.kernels.precision import rounded, summed_product
from charloom.kernels.scan import scan_steps, zeroed
from charloom.settings import CellActivation, Precision


class ElmanResiduals(NamedTuple):
    """What the forward pass keeps for the backward pass."""

    recurrent_kernel: Float[Array, "hidden hidden"]  # rounded to the precision of the factors
    start: Float[Array, "batch hidden"]
    resets: Bool[Array, "time batch"]
    hidden: Float[Array, "time batch hidden"]


def elman_step(
    projected: Float[Array, "batch hidden"],
    recurrent_kernel: Float[Array, "hidden hidden"],
    carry: Float[Array, "batch hidden"],
    cell_activation: CellActivation = "tanh",
) -> Float[Array, "batch hidden"]:
    """Returns the carry after one time step, which is also the output: h' = tanh(p + h U).

    Args:
        projected: the projected input of the step, p = x W + b.
        recurrent_kernel: U.
        carry: h.
        cell_activation: the activation to use instead of tanh.
    """
    return CELL_ACTIVATIONS[cell_activation].apply(projected + carry @ recurrent_kernel)


def elman_sequence(
    inputs: LayerInputs,
    recurrent_kernel: Float[Array, "hidden hidden"],
    carry: Float[Array, "batch hidden"],
    resets: Bool[Array, "time batch"],
    cell_activation: CellActivation = "tanh",
    precision: Precision = "float32",
) -> tuple[Float[Array, "time batch hidden"], Float[Array, "batch hidden"]]:
    """Returns the outputs of all time steps and the last carry.

    It is differentiable in the first three arguments.

    Args:
        inputs: the inputs of the layer, time first.
        recurrent_kernel: the kernel of the recurrent product.
        carry: the state before the first time step.
        resets: where True, the row's state is zeroed before the time step.
        cell_activation: see `elman_step`.
        precision: the precision of the factors of all products.
    """
    if uses_native_kernel(inputs, recurrent_kernel, cell_activation):
        activations = native.Activations("sigmoid", cell_activation)  # the gate activation is not used
        return native.elman_sequence(inputs, recurrent_kernel, carry, resets, activations, precision)
    return _reference(inputs.projected(precision), recurrent_kernel, carry, resets, cell_activation, precision)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _reference(
    projected: Float[Array, "time batch hidden"],
    recurrent_kernel: Float[Array, "hidden hidden"],
    carry: Float[Array, "batch hidden"],
    resets: Bool[Array, "time batch"],
    cell_activation: CellActivation,
    precision: Precision,
) -> tuple[Float[Array, "time batch hidden"], Float[Array, "batch hidden"]]:
    kernel = rounded(recurrent_kernel, precision)

    def step(
        carry: Float[Array, "batch hidden"], inputs: tuple[Float[Array, "batch hidden"], Bool[Array, " batch"]]
    ) -> tuple[Float[Array, "batch hidden"], Float[Array, "batch hidden"]]:
        projected, resets = inputs
        carry = rounded(zeroed(carry, resets), precision)
        carry = elman_step(projected, kernel, carry, cell_activation)
        return carry, carry

    last, hidden = scan_steps(step, carry, (projected, resets))
    return hidden, last


def elman_forward(
    projected: Float[Array, "time batch hidden"],
    recurrent_kernel: Float[Array, "hidden hidden"],
    carry: Float[Array, "batch hidden"],
    resets: Bool[Array, "time batch"],
    cell_activation: CellActivation,
    precision: Precision = "float32",
) -> tuple[tuple[Float[Array, "time batch hidden"], Float[Array, "batch hidden"]], ElmanResiduals]:
    """Returns the reference result of `elman_sequence` for projected inputs, and the residuals for `elman_backward`."""
    hidden, last = _reference(projected, recurrent_kernel, carry, resets, cell_activation, precision)
    return (hidden, last), ElmanResiduals(rounded(recurrent_kernel, precision), carry, resets, hidden)


def elman_backward(
    cell_activation: CellActivation,
    precision: Precision,
    residuals: ElmanResiduals,
    cotangents: tuple[Float[Array, "time batch hidden"], Float[Array, "batch hidden"]],
) -> tuple[Float[Array, "time batch hidden"], Float[Array, "hidden hidden"], Float[Array, "batch hidden"], None]:
    """Returns the cotangents of the arguments of `elman_forward`; None for `resets`."""
    recurrent_kernel, start, resets, hidden = residuals
    hidden_cotangents, last_cotangent = cotangents
    previous = zeroed(jnp.concatenate([start[None], hidden[:-1]]), resets)
    transposed = recurrent_kernel.T
    backward = CELL_ACTIVATIONS[cell_activation].backward

    def step(
        d_carry: Float[Array, "batch hidden"], inputs: tuple[Array, Array, Array]
    ) -> tuple[Float[Array, "batch hidden"], Float[Array, "batch hidden"]]:
        hidden_cotangent, resets, hidden = inputs
        d_projected = backward(hidden, d_carry + hidden_cotangent)
        return zeroed(rounded(d_projected, precision) @ transposed, resets), d_projected

    d_start, d_projected = scan_steps(step, last_cotangent, (hidden_cotangents, resets, hidden), reverse=True)
    d_recurrent_kernel = summed_product(rounded(previous, precision), rounded(d_projected, precision))
    return d_projected, d_recurrent_kernel, d_start, None


_reference.defvjp(elman_forward, elman_backward)
