"""The LSTM over a whole unroll, with its gradient by hand.

Differentiating `lax.scan` adds up the recurrent weights' gradient step by step. Here the backward
scan only carries the state's gradient and keeps each step's pre-activation gradient; one product over all
steps and lanes then gives the weights' gradient, several times faster on a CPU.

Gates stand in the order input, forget, candidate, output, as in Keras.
Source: Hochreiter and Schmidhuber, 1997; forget gate: Gers, Schmidhuber and Cummins, 2000.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float


class LSTMCarry(NamedTuple):
    """What an LSTM layer carries from step to step, a row for each lane."""

    hidden: Float[Array, "lanes hidden"]
    cell: Float[Array, "lanes hidden"]


class _Gates(NamedTuple):
    input: Float[Array, "lanes hidden"]
    forget: Float[Array, "lanes hidden"]
    candidate: Float[Array, "lanes hidden"]
    output: Float[Array, "lanes hidden"]


class _Residuals(NamedTuple):
    recurrent_kernel: Float[Array, "hidden gates"]
    start: LSTMCarry
    resets: Bool[Array, "time lanes"]
    hidden: Float[Array, "time lanes hidden"]
    cell: Float[Array, "time lanes hidden"]
    gates: _Gates  # each with time as its first axis


def lstm_step(
    projected: Float[Array, "lanes gates"],
    recurrent_kernel: Float[Array, "hidden gates"],
    carry: LSTMCarry,
) -> LSTMCarry:
    """Returns the carry after one step; its `hidden` is the step's output.

        i, f, o = sigmoid(p + h U)   g = tanh(p + h U)   c' = f c + i g   h' = o tanh(c')

    Args:
        projected: the step's input after the input kernel and the bias, p = x W + b.
        recurrent_kernel: U.
        carry: h and c.
    """
    return _step(projected, recurrent_kernel, carry)[0]


@jax.custom_vjp
def lstm_sequence(
    projected: Float[Array, "time lanes gates"],
    recurrent_kernel: Float[Array, "hidden gates"],
    carry: LSTMCarry,
    resets: Bool[Array, "time lanes"],
) -> tuple[Float[Array, "time lanes hidden"], LSTMCarry]:
    """Returns the outputs of all steps and the last carry.

    Args:
        projected: the inputs after the input kernel and the bias, time first.
        recurrent_kernel: the kernel of the recurrent product.
        carry: the state before the first step.
        resets: where True, the lane's state is zero before the step.

    Differentiable in the first three.
    """

    def step(
        carry: LSTMCarry, inputs: tuple[Float[Array, "lanes gates"], Bool[Array, " lanes"]]
    ) -> tuple[LSTMCarry, Float[Array, "lanes hidden"]]:
        projected, resets = inputs
        carry = lstm_step(projected, recurrent_kernel, _reset(carry, resets))
        return carry, carry.hidden

    carry, hidden = lax.scan(step, carry, (projected, resets))
    return hidden, carry


def _forward(
    projected: Float[Array, "time lanes gates"],
    recurrent_kernel: Float[Array, "hidden gates"],
    carry: LSTMCarry,
    resets: Bool[Array, "time lanes"],
) -> tuple[tuple[Float[Array, "time lanes hidden"], LSTMCarry], _Residuals]:
    def step(
        carry: LSTMCarry, inputs: tuple[Float[Array, "lanes gates"], Bool[Array, " lanes"]]
    ) -> tuple[LSTMCarry, tuple[LSTMCarry, _Gates]]:
        projected, resets = inputs
        carry, gates = _step(projected, recurrent_kernel, _reset(carry, resets))
        return carry, (carry, gates)

    last, (carries, gates) = lax.scan(step, carry, (projected, resets))
    residuals = _Residuals(recurrent_kernel, carry, resets, carries.hidden, carries.cell, gates)
    return (carries.hidden, last), residuals


def _backward(
    residuals: _Residuals, cotangents: tuple[Float[Array, "time lanes hidden"], LSTMCarry]
) -> tuple[Float[Array, "time lanes gates"], Float[Array, "hidden gates"], LSTMCarry, None]:
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

    def step(
        carry: LSTMCarry, inputs: tuple[Array, Array, Array, Array, _Gates]
    ) -> tuple[LSTMCarry, Float[Array, "lanes gates"]]:
        hidden_cotangent, resets, cell, previous_cell, gate = inputs
        d_hidden = carry.hidden + hidden_cotangent
        squashed = jnp.tanh(cell)
        d_cell = carry.cell + d_hidden * gate.output * (1 - squashed**2)
        d_projected = jnp.concatenate(
            [
                d_cell * gate.candidate * gate.input * (1 - gate.input),
                d_cell * previous_cell * gate.forget * (1 - gate.forget),
                d_cell * gate.input * (1 - gate.candidate**2),
                d_hidden * squashed * gate.output * (1 - gate.output),
            ],
            axis=-1,
        )
        before = LSTMCarry(d_projected @ transposed, d_cell * gate.forget)
        return _reset(before, resets), d_projected

    d_start, d_projected = lax.scan(
        step, last_cotangent, (hidden_cotangents, resets, cell, previous.cell, gates), reverse=True
    )
    d_recurrent_kernel = jnp.einsum("tlh,tlg->hg", previous.hidden, d_projected)
    return d_projected, d_recurrent_kernel, d_start, None


lstm_sequence.defvjp(_forward, _backward)


def _step(
    projected: Float[Array, "lanes gates"],
    recurrent_kernel: Float[Array, "hidden gates"],
    carry: LSTMCarry,
) -> tuple[LSTMCarry, _Gates]:
    input_, forget, candidate, output = jnp.split(projected + carry.hidden @ recurrent_kernel, 4, axis=-1)
    gates = _Gates(jax.nn.sigmoid(input_), jax.nn.sigmoid(forget), jnp.tanh(candidate), jax.nn.sigmoid(output))
    cell = gates.forget * carry.cell + gates.input * gates.candidate
    return LSTMCarry(gates.output * jnp.tanh(cell), cell), gates


def _reset(carry: LSTMCarry, resets: Bool[Array, "*lanes"]) -> LSTMCarry:
    # A choice, not a product with 0: a reset must clear a state that has become NaN, too.
    return LSTMCarry(*(jnp.where(resets[..., None], 0, state) for state in carry))
