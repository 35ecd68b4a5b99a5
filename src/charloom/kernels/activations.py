"""Activations by name, each with a gradient that is computed from its output.

The backward pass therefore does not need the pre-activations.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from charloom.settings import CellActivation, GateActivation

_Values = Float[Array, "*batch units"]


class Activation(NamedTuple):
    """An activation function and its gradient.

    Attributes:
        apply: returns the outputs for pre-activations.
        backward: returns the cotangent of the pre-activations, from the output and its cotangent.
    """

    apply: Callable[[_Values], _Values]
    backward: Callable[[_Values, _Values], _Values]


def hard_sigmoid(values: Float[Array, "*batch units"]) -> Float[Array, "*batch units"]:
    """Returns clip(0.2 x + 0.5, 0, 1), which is the default gate activation of Keras before 2.3.

    In Keras 3 and `jax.nn`, the same name stands for clip(x / 6 + 0.5, 0, 1).
    """
    return jnp.clip(0.2 * values + 0.5, 0, 1)


def _softmax_backward(
    output: Float[Array, "*batch units"], cotangent: Float[Array, "*batch units"]
) -> Float[Array, "*batch units"]:
    return output * (cotangent - jnp.sum(output * cotangent, axis=-1, keepdims=True))


GATE_ACTIVATIONS: dict[GateActivation, Activation] = {
    "sigmoid": Activation(jax.nn.sigmoid, lambda output, cotangent: cotangent * output * (1 - output)),
    "hard_sigmoid": Activation(
        hard_sigmoid, lambda output, cotangent: jnp.where((output > 0) & (output < 1), 0.2 * cotangent, 0)
    ),
}

CELL_ACTIVATIONS: dict[CellActivation, Activation] = {
    "tanh": Activation(jnp.tanh, lambda output, cotangent: cotangent * (1 - output**2)),
    "relu": Activation(jax.nn.relu, lambda output, cotangent: jnp.where(output > 0, cotangent, 0)),
    "softmax": Activation(jax.nn.softmax, _softmax_backward),
}
