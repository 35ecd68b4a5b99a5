"""The GRU over a whole sequence, with a hand-written gradient as in `lstm`.

Gates are in the order update, reset, candidate, as in Keras. The reset gate is applied to the recurrent product, which
therefore has a separate bias (`reset_after` in Keras).
Source: Cho et al., 2014; the reset after the product: Keras and cuDNN.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from charloom.kernels import native
from charloom.kernels.activations import CELL_ACTIVATIONS, GATE_ACTIVATIONS
from charloom.kernels.choice import uses_native_kernel
from charloom.kernels.inputs import LayerInputs
from charloom.kernels.precision import rounded, summed_product
from charloom.kernels.scan import scan_steps, zeroed
from charloom.settings import CellActivation, GateActivation, Precision


class _Gates(NamedTuple):
    update: Float[Array, "*batch hidden"]
    reset: Float[Array, "*batch hidden"]
    candidate: Float[Array, "*batch hidden"]
    recurrent: Float[Array, "*batch hidden"]  # the candidate's recurrent product, before the reset gate


class _Residuals(NamedTuple):
    recurrent_kernel: Float[Array, "hidden gates"]  # rounded to the precision of the factors
    start: Float[Array, "batch hidden"]
    resets: Bool[Array, "time batch"]
    hidden: Float[Array, "time batch hidden"]
    gates: _Gates  # each with time as its first axis


def gru_step(
    projected: Float[Array, "batch gates"],
    recurrent_kernel: Float[Array, "hidden gates"],
    recurrent_bias: Float[Array, " gates"],
    carry: Float[Array, "batch hidden"],
    gate_activation: GateActivation = "sigmoid",
    cell_activation: CellActivation = "tanh",
) -> Float[Array, "batch hidden"]:
    """Returns the carry after one time step, which is also the output.

        z, r = sigmoid(p + h U + d)   n = tanh(p + r (h U + d))   h' = z h + (1 - z) n

    Args:
        projected: the projected input of the step, p = x W + b.
        recurrent_kernel: U.
        recurrent_bias: d.
        carry: h.
        gate_activation: the activation to use instead of sigmoid.
        cell_activation: the activation to use instead of tanh.
    """
    return _step(projected, recurrent_kernel, recurrent_bias, carry, gate_activation, cell_activation)[0]


def gru_sequence(
    inputs: LayerInputs,
    recurrent_kernel: Float[Array, "hidden gates"],
    recurrent_bias: Float[Array, " gates"],
    carry: Float[Array, "batch hidden"],
    resets: Bool[Array, "time batch"],
    gate_activation: GateActivation = "sigmoid",
    cell_activation: CellActivation = "tanh",
    precision: Precision = "float32",
) -> tuple[Float[Array, "time batch hidden"], Float[Array, "batch hidden"]]:
    """Returns the outputs of all time steps and the last carry.

    It is differentiable in the first four arguments.

    Args:
        inputs: the inputs of the layer, time first.
        recurrent_kernel: the kernel of the recurrent product.
        recurrent_bias: added to the recurrent product.
        carry: the state before the first time step.
        resets: where True, the row's state is zeroed before the time step.
        gate_activation: see `gru_step`.
        cell_activation: see `gru_step`.
        precision: the precision of the factors of all products.
    """
    if uses_native_kernel(inputs, recurrent_kernel, cell_activation):
        activations = native.Activations(gate_activation, cell_activation)
        return native.gru_sequence(inputs, recurrent_kernel, recurrent_bias, carry, resets, activations, precision)
    projected = inputs.projected(precision)
    return _reference(
        projected, recurrent_kernel, recurrent_bias, carry, resets, gate_activation, cell_activation, precision
    )


@partial(jax.custom_vjp, nondiff_argnums=(5, 6, 7))
def _reference(
    projected: Float[Array, "time batch gates"],
    recurrent_kernel: Float[Array, "hidden gates"],
    recurrent_bias: Float[Array, " gates"],
    carry: Float[Array, "batch hidden"],
    resets: Bool[Array, "time batch"],
    gate_activation: GateActivation,
    cell_activation: CellActivation,
    precision: Precision,
) -> tuple[Float[Array, "time batch hidden"], Float[Array, "batch hidden"]]:
    arguments = projected, recurrent_kernel, recurrent_bias, carry, resets
    return _forward(*arguments, gate_activation, cell_activation, precision)[0]


def _forward(
    projected: Float[Array, "time batch gates"],
    recurrent_kernel: Float[Array, "hidden gates"],
    recurrent_bias: Float[Array, " gates"],
    carry: Float[Array, "batch hidden"],
    resets: Bool[Array, "time batch"],
    gate_activation: GateActivation,
    cell_activation: CellActivation,
    precision: Precision,
) -> tuple[tuple[Float[Array, "time batch hidden"], Float[Array, "batch hidden"]], _Residuals]:
    kernel = rounded(recurrent_kernel, precision)

    def step(
        carry: Float[Array, "batch hidden"], inputs: tuple[Float[Array, "batch gates"], Bool[Array, " batch"]]
    ) -> tuple[Float[Array, "batch hidden"], tuple[Float[Array, "batch hidden"], _Gates]]:
        projected, resets = inputs
        carry = zeroed(carry, resets)
        carry, gates = _step(projected, kernel, recurrent_bias, carry, gate_activation, cell_activation, precision)
        return carry, (carry, gates)

    last, (hidden, gates) = scan_steps(step, carry, (projected, resets))
    return (hidden, last), _Residuals(kernel, carry, resets, hidden, gates)


def _backward(
    gate_activation: GateActivation,
    cell_activation: CellActivation,
    precision: Precision,
    residuals: _Residuals,
    cotangents: tuple[Float[Array, "time batch hidden"], Float[Array, "batch hidden"]],
) -> tuple[
    Float[Array, "time batch gates"],
    Float[Array, "hidden gates"],
    Float[Array, " gates"],
    Float[Array, "batch hidden"],
    None,
]:
    recurrent_kernel, start, resets, hidden, gates = residuals
    hidden_cotangents, last_cotangent = cotangents
    previous = zeroed(jnp.concatenate([start[None], hidden[:-1]]), resets)
    transposed = recurrent_kernel.T
    gate_backward = GATE_ACTIVATIONS[gate_activation].backward
    cell_backward = CELL_ACTIVATIONS[cell_activation].backward

    def step(
        d_carry: Float[Array, "batch hidden"], inputs: tuple[Array, Array, Array, _Gates]
    ) -> tuple[Float[Array, "batch hidden"], tuple[Float[Array, "batch gates"], Float[Array, "batch gates"]]]:
        hidden_cotangent, resets, previous, gate = inputs
        d_hidden = d_carry + hidden_cotangent
        d_candidate = cell_backward(gate.candidate, d_hidden * (1 - gate.update))
        d_update = gate_backward(gate.update, d_hidden * (previous - gate.candidate))
        d_reset = gate_backward(gate.reset, d_candidate * gate.recurrent)
        d_projected = jnp.concatenate([d_update, d_reset, d_candidate], axis=-1)
        d_product = jnp.concatenate([d_update, d_reset, d_candidate * gate.reset], axis=-1)
        before = d_hidden * gate.update + rounded(d_product, precision) @ transposed
        return zeroed(before, resets), (d_projected, d_product)

    d_start, (d_projected, d_product) = scan_steps(
        step, last_cotangent, (hidden_cotangents, resets, previous, gates), reverse=True
    )
    d_recurrent_kernel = summed_product(rounded(previous, precision), rounded(d_product, precision))
    return d_projected, d_recurrent_kernel, d_product.sum(axis=(0, 1)), d_start, None


_reference.defvjp(_forward, _backward)


def _step(
    projected: Float[Array, "batch gates"],
    recurrent_kernel: Float[Array, "hidden gates"],
    recurrent_bias: Float[Array, " gates"],
    carry: Float[Array, "batch hidden"],
    gate_activation: GateActivation,
    cell_activation: CellActivation,
    precision: Precision = "float32",
) -> tuple[Float[Array, "batch hidden"], _Gates]:
    """Returns the carry after a time step, and the gates. `recurrent_kernel` is already rounded."""
    gate = GATE_ACTIVATIONS[gate_activation].apply
    update_in, reset_in, candidate_in = jnp.split(projected, 3, axis=-1)
    update, reset, recurrent = jnp.split(rounded(carry, precision) @ recurrent_kernel + recurrent_bias, 3, axis=-1)
    update, reset = gate(update_in + update), gate(reset_in + reset)
    candidate = CELL_ACTIVATIONS[cell_activation].apply(candidate_in + reset * recurrent)
    return update * carry + (1 - update) * candidate, _Gates(update, reset, candidate, recurrent)
