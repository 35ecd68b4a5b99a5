"""Recurrent cells, and the table that names them. One more cell is one more class and entry.

A cell owns its kernels; the arithmetic over time is in `charloom.kernels`.
"""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.nn.initializers import glorot_uniform, orthogonal
from jaxtyping import Array, Bool, Float, Key

from charloom.kernels import LSTMCarry, lstm_sequence, lstm_step
from charloom.settings import CellName


class Cell(eqx.Module):
    """One recurrent layer.

    Attributes:
        kernel: of the input product.
        recurrent_kernel: of the recurrent product.
        bias: added to both; `gates` is a multiple of `hidden`.
    """

    kernel: eqx.AbstractVar[Float[Array, "input gates"]]
    recurrent_kernel: eqx.AbstractVar[Float[Array, "hidden gates"]]
    bias: eqx.AbstractVar[Float[Array, " gates"]]

    @classmethod
    @abstractmethod
    def init(cls, input_size: int, hidden: int, key: Key[Array, ""]) -> "Cell":
        """Returns a cell with fresh weights."""

    @abstractmethod
    def zero_carry(self, lanes: int) -> Any:
        """Returns the state before a text begins, a row of zeros for each lane."""

    @abstractmethod
    def step(self, projected: Float[Array, "lanes gates"], carry: Any) -> tuple[Float[Array, "lanes hidden"], Any]:
        """Returns the output and the carry after one step on an already projected input."""

    @abstractmethod
    def sequence(
        self,
        projected: Float[Array, "time lanes gates"],
        carry: Any,
        resets: Bool[Array, "time lanes"],
    ) -> tuple[Float[Array, "time lanes hidden"], Any]:
        """Returns the outputs of all steps and the last carry; the state is zeroed before marked steps."""

    def project(self, inputs: Float[Array, "*batch input"]) -> Float[Array, "*batch gates"]:
        """Returns `inputs` after the input kernel and the bias."""
        return inputs @ self.kernel + self.bias


class LSTMCell(Cell):
    """Long short-term memory; gates in the order input, forget, candidate, output, as in Keras.

    Kernels start Glorot-uniform, recurrent kernels orthogonal, biases zero but for the forget
    gate's, which start at one.
    Source: Jozefowicz, Zaremba and Sutskever, 2015 (the forget bias).
    """

    kernel: Float[Array, "input gates"]
    recurrent_kernel: Float[Array, "hidden gates"]
    bias: Float[Array, " gates"]

    @classmethod
    def init(cls, input_size: int, hidden: int, key: Key[Array, ""]) -> "LSTMCell":
        kernel_key, recurrent_key = jax.random.split(key)
        return cls(
            kernel=glorot_uniform()(kernel_key, (input_size, 4 * hidden)),
            recurrent_kernel=orthogonal()(recurrent_key, (hidden, 4 * hidden)),
            bias=jnp.zeros(4 * hidden).at[hidden : 2 * hidden].set(1.0),
        )

    def zero_carry(self, lanes: int) -> LSTMCarry:
        hidden = self.recurrent_kernel.shape[0]
        # Two arrays, not one twice: a donated buffer may be handed over only once.
        return LSTMCarry(*(jnp.zeros((lanes, hidden), self.bias.dtype) for _ in range(2)))

    def step(
        self, projected: Float[Array, "lanes gates"], carry: LSTMCarry
    ) -> tuple[Float[Array, "lanes hidden"], LSTMCarry]:
        carry = lstm_step(projected, self.recurrent_kernel, carry)
        return carry.hidden, carry

    def sequence(
        self,
        projected: Float[Array, "time lanes gates"],
        carry: LSTMCarry,
        resets: Bool[Array, "time lanes"],
    ) -> tuple[Float[Array, "time lanes hidden"], LSTMCarry]:
        return lstm_sequence(projected, self.recurrent_kernel, carry, resets)


CELLS: dict[CellName, type[Cell]] = {"lstm": LSTMCell}
