"""The LSTM over a whole sequence, with a hand-written gradient.

Automatic differentiation of `lax.scan` would add up the gradient of the recurrent weights step by step. Here the
backward scan only carries the state's gradient, and stores the pre-activations' gradient of each time step. One product
over all time steps and rows then gives the weights' gradient, several times faster on a CPU.

Gates are in the order input, forget, candidate, output, as in Keras.
Source: Hochreiter and Schmidhuber, 1997; forget gate: Gers, Schmidhuber and Cummins, 2000.
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


class LSTMCarry(NamedTuple):
    """The state of an LSTM layer between time steps, one row per batch row."""

    hidden: Float[Array, "batch hidden"]
    cell: Float[Array, "batch hidden"]


class _Gates(NamedTuple):
    input: Float[Array, "batch hidden"]
    forget: Float[Array, "batch hidden"]
    candidate: Float[Array, "batch hidden"]
    output: Float[Array, "batch hidden"]


class LSTMResiduals(NamedTuple):
    """What the forward pass keeps for the backward pass."""

    recurrent_kernel: Float[Array, "hidden gates"]  # rounded to the precision of the factors
    start: LSTMCarry
    resets: Bool[Array, "time batch"]
    hidden: Float[Array, "time batch hidden"]
    cell: Float[Array, "time batch hidden"]
    gates: _Gates  # each with time as its first axis


def lstm_step(
    projected: Float[Array, "batch gates"],
    recurrent_kernel: Float[Array, "hidden gates"],
    carry: LSTMCarry,
    gate_activation: GateActivation = "sigmoid",
    cell_activation: CellActivation = "tanh",
) -> LSTMCarry:
    """Returns the carry after one time step. Its `hidden` is also the output.

        i, f, o = sigmoid(p + h U)   g = tanh(p + h U)   c' = f c + i g   h' = o tanh(c')

    Args:
        projected: the projected input of the step, p = x W + b.
        recurrent_kernel: U.
        carry: h and c.
        gate_activation: the activation to use instead of sigmoid.
        cell_activation: the activation to use instead of tanh, both times.
    """
    return _step(projected, recurrent_kernel, carry, gate_activation, cell_activation)[0]


def lstm_sequence(
    inputs: LayerInputs,
    recurrent_kernel: Float[Array, "hidden gates"],
    carry: LSTMCarry,
    resets: Bool[Array, "time batch"],
    gate_activation: GateActivation = "sigmoid",
    cell_activation: CellActivation = "tanh",
    precision: Precision = "float32",
) -> tuple[Float[Array, "time batch hidden"], LSTMCarry]:
    """Returns the outputs of all time steps and the last carry.

    It is differentiable in the first three arguments.

    Args:
        inputs: the inputs of the layer, time first.
        recurrent_kernel: the kernel of the recurrent product.
        carry: the state before the first time step.
        resets: where True, the row's state is zeroed before the time step.
        gate_activation: see `lstm_step`.
        cell_activation: see `lstm_step`.
        precision: the precision of the factors of all products.
    """
    if uses_native_kernel(inputs, recurrent_kernel, cell_activation):
        activations = native.Activations(gate_activation, cell_activation)
        outputs, last = native.lstm_sequence(inputs, recurrent_kernel, tuple(carry), resets, activations, precision)
        return outputs, LSTMCarry(*last)
    projected = inputs.projected(precision)
    return _reference(projected, recurrent_kernel, carry, resets, gate_activation, cell_activation, precision)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def _reference(
    projected: Float[Array, "time batch gates"],
    recurrent_kernel: Float[Array, "hidden gates"],
    carry: LSTMCarry,
    resets: Bool[Array, "time batch"],
    gate_activation: GateActivation,
    cell_activation: CellActivation,
    precision: Precision,
) -> tuple[Float[Array, "time batch hidden"], LSTMCarry]:
    kernel = rounded(recurrent_kernel, precision)

    def step(
        carry: LSTMCarry, inputs: tuple[Float[Array, "batch gates"], Bool[Array, " batch"]]
    ) -> tuple[LSTMCarry, Float[Array, "batch hidden"]]:
        projected, resets = inputs
        carry = _reset(carry, resets)
        carry, _ = _step(projected, kernel, carry, gate_activation, cell_activation, precision)
        return carry, carry.hidden

    carry, hidden = scan_steps(step, carry, (projected, resets))
    return hidden, carry


def lstm_forward(
    projected: Float[Array, "time batch gates"],
    recurrent_kernel: Float[Array, "hidden gates"],
    carry: LSTMCarry,
    resets: Bool[Array, "time batch"],
    gate_activation: GateActivation,
    cell_activation: CellActivation,
    precision: Precision = "float32",
) -> tuple[tuple[Float[Array, "time batch hidden"], LSTMCarry], LSTMResiduals]:
    """Returns the reference result of `lstm_sequence` for projected inputs, and the residuals for `lstm_backward`."""
    kernel = rounded(recurrent_kernel, precision)

    def step(
        carry: LSTMCarry, inputs: tuple[Float[Array, "batch gates"], Bool[Array, " batch"]]
    ) -> tuple[LSTMCarry, tuple[LSTMCarry, _Gates]]:
        projected, resets = inputs
        carry = _reset(carry, resets)
        carry, gates = _step(projected, kernel, carry, gate_activation, cell_activation, precision)
        return carry, (carry, gates)

    last, (carries, gates) = scan_steps(step, carry, (projected, resets))
    residuals = LSTMResiduals(kernel, carry, resets, carries.hidden, carries.cell, gates)
    return (carries.hidden, last), residuals


def lstm_backward(
    gate_activation: GateActivation,
    cell_activation: CellActivation,
    precision: Precision,
    residuals: LSTMResiduals,
    cotangents: tuple[Float[Array, "time batch hidden"], LSTMCarry],
) -> tuple[Float[Array, "time batch gates"], Float[Array, "hidden gates"], LSTMCarry, None]:
    """Returns the cotangents of the arguments of `lstm_forward`; None for `resets`."""
    recurrent_kernel, start, resets, hidden, cell, gates = residuals
    hidden_cotangents, last_cotangent = cotangents
    previous = _reset(
        LSTMCarry(
            jnp.concatenate([start.hidden[None], hidden[:-1]]),
            jnp.concatenate([start.cell[None], cell[:-1]]),
        ),
        resets,
    )
    transposed = recurrent_kernel.T
    gate_backward = GATE_ACTIVATIONS[gate_activation].backward
    activate, activate_backward = CELL_ACTIVATIONS[cell_activation]

    def step(
        carry: LSTMCarry, inputs: tuple[Array, Array, Array, Array, _Gates]
    ) -> tuple[LSTMCarry, Float[Array, "batch gates"]]:
        hidden_cotangent, resets, cell, previous_cell, gate = inputs
        d_hidden = carry.hidden + hidden_cotangent
        activated = activate(cell)
        d_cell = carry.cell + activate_backward(activated, d_hidden * gate.output)
        d_projected = jnp.concatenate(
            [
                gate_backward(gate.input, d_cell * gate.candidate),
                gate_backward(gate.forget, d_cell * previous_cell),
                activate_backward(gate.candidate, d_cell * gate.input),
                gate_backward(gate.output, d_hidden * activated),
            ],
            axis=-1,
        )
        before = LSTMCarry(rounded(d_projected, precision) @ transposed, d_cell * gate.forget)
        return _reset(before, resets), d_projected

    d_start, d_projected = scan_steps(
        step, last_cotangent, (hidden_cotangents, resets, cell, previous.cell, gates), reverse=True
    )
    d_recurrent_kernel = summed_product(rounded(previous.hidden, precision), rounded(d_projected, precision))
    return d_projected, d_recurrent_kernel, d_start, None


_reference.defvjp(lstm_forward, lstm_backward)


def _step(
    projected: Float[Array, "batch gates"],
    recurrent_kernel: Float[Array, "hidden gates"],
    carry: LSTMCarry,
    gate_activation: GateActivation,
    cell_activation: CellActivation,
    precision: Precision = "float32",
) -> tuple[LSTMCarry, _Gates]:
    """Returns the carry after a time step, and the gates. `recurrent_kernel` is already rounded."""
    gate, activate = GATE_ACTIVATIONS[gate_activation].apply, CELL_ACTIVATIONS[cell_activation].apply
    input_, forget, candidate, output = jnp.split(
        projected + rounded(carry.hidden, precision) @ recurrent_kernel, 4, axis=-1
    )
    gates = _Gates(gate(input_), gate(forget), activate(candidate), gate(output))
    cell = gates.forget * carry.cell + gates.input * gates.candidate
    return LSTMCarry(gates.output * activate(cell), cell), gates


def _reset(carry: LSTMCarry, resets: Bool[Array, "*batch"]) -> LSTMCarry:
    return LSTMCarry(*(zeroed(state, resets) for state in carry))
