"""Recurrent cells, and the table that names them. One more cell is one more class and entry.

A cell owns its kernels; the arithmetic over time is in `charloom.kernels`.
"""

from abc import abstractmethod
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from charloom.kernels import (
    Features,
    LayerInputs,
    LSTMCarry,
    elman_sequence,
    elman_step,
    gru_sequence,
    gru_step,
    lstm_sequence,
    lstm_step,
)
from charloom.models.initializers import glorot_uniform, orthogonal, zeros
from charloom.settings import CellActivation, CellName, GateActivation


class Cell(eqx.Module):
    """One recurrent layer. Kernels start Glorot-uniform, recurrent kernels orthogonal, biases zero, as in Keras.

    Attributes:
        kernel: of the input product.
        recurrent_kernel: of the recurrent product.
        bias: added to both; `gates` is a multiple of `hidden`.
        gate_activation: of the gates, for cells that have any.
        cell_activation: of what a step computes.
        parts: how many pre-activations a unit has.
    """

    kernel: Float[Array, "input gates"]
    recurrent_kernel: Float[Array, "hidden gates"]
    bias: Float[Array, " gates"]
    gate_activation: GateActivation = eqx.field(static=True)
    cell_activation: CellActivation = eqx.field(static=True)

    parts: ClassVar[int]

    @classmethod
    def init(
        cls,
        input_size: int,
        hidden: int,
        rng: np.random.Generator | None,
        gate_activation: GateActivation = "sigmoid",
        cell_activation: CellActivation = "tanh",
    ) -> "Cell":
        """Returns a cell with fresh weights, or without `rng` with zeros."""
        return cls(
            kernel=glorot_uniform(rng, (input_size, cls.parts * hidden)),
            recurrent_kernel=orthogonal(rng, (hidden, cls.parts * hidden)),
            gate_activation=gate_activation,
            cell_activation=cell_activation,
            **cls.initial_biases(hidden),
        )

    @classmethod
    def initial_biases(cls, hidden: int) -> dict[str, Float[Array, " gates"]]:
        """Returns the fresh biases by their fields' names."""
        return {"bias": zeros(cls.parts * hidden)}

    @abstractmethod
    def step(self, projected: Float[Array, "batch gates"], carry: Any) -> tuple[Float[Array, "batch hidden"], Any]:
        """Returns the output and the carry after one step on an already projected input."""

    @abstractmethod
    def sequence(
        self, inputs: LayerInputs, carry: Any, resets: Bool[Array, "time batch"]
    ) -> tuple[Float[Array, "time batch hidden"], Any]:
        """Returns the outputs of all steps and the last carry; the state is zeroed before marked steps."""

    @property
    def hidden(self) -> int:
        """How many units the layer has."""
        return self.recurrent_kernel.shape[0]

    def zero_carry(self, batch_size: int) -> Any:
        """Returns the state before a text begins, zeros for each row of the batch."""
        return jnp.zeros((batch_size, self.hidden), self.bias.dtype)

    def project(self, inputs: Float[Array, "*batch input"]) -> Float[Array, "*batch gates"]:
        """Returns `inputs` after the input kernel and the bias."""
        return inputs @ self.kernel + self.bias

    def features(self, values: Float[Array, "time batch input"]) -> Features:
        """Returns `values` as `sequence` reads them."""
        return Features(values, self.kernel, self.bias)


class LSTMCell(Cell):
    """Long short-term memory; gates in the order input, forget, candidate, output, as in Keras.

    The forget gate's bias starts at one.
    Source: Jozefowicz, Zaremba and Sutskever, 2015 (the forget bias).
    """

    parts = 4

    @classmethod
    def initial_biases(cls, hidden: int) -> dict[str, Float[Array, " gates"]]:
        return {"bias": jnp.asarray(np.repeat(np.array([0, 1, 0, 0], np.float32), hidden))}

    def zero_carry(self, batch_size: int) -> LSTMCarry:
        # Two arrays, not one twice: a donated buffer may be handed over only once.
        return LSTMCarry(super().zero_carry(batch_size), super().zero_carry(batch_size))

    def step(
        self, projected: Float[Array, "batch gates"], carry: LSTMCarry
    ) -> tuple[Float[Array, "batch hidden"], LSTMCarry]:
        carry = lstm_step(projected, self.recurrent_kernel, carry, self.gate_activation, self.cell_activation)
        return carry.hidden, carry

    def sequence(
        self, inputs: LayerInputs, carry: LSTMCarry, resets: Bool[Array, "time batch"]
    ) -> tuple[Float[Array, "time batch hidden"], LSTMCarry]:
        activations = self.gate_activation, self.cell_activation
        return lstm_sequence(inputs, self.recurrent_kernel, carry, resets, *activations)


class GRUCell(Cell):
    """Gated recurrent unit; gates in the order update, reset, candidate, as in Keras.

    Attributes:
        recurrent_bias: added to the recurrent product, before the reset gate.
    """

    recurrent_bias: Float[Array, " gates"]

    parts = 3

    @classmethod
    def initial_biases(cls, hidden: int) -> dict[str, Float[Array, " gates"]]:
        return {name: zeros(3 * hidden) for name in ("bias", "recurrent_bias")}

    def step(
        self, projected: Float[Array, "batch gates"], carry: Float[Array, "batch hidden"]
    ) -> tuple[Float[Array, "batch hidden"], Float[Array, "batch hidden"]]:
        activations = self.gate_activation, self.cell_activation
        carry = gru_step(projected, self.recurrent_kernel, self.recurrent_bias, carry, *activations)
        return carry, carry

    def sequence(
        self,
        inputs: LayerInputs,
        carry: Float[Array, "batch hidden"],
        resets: Bool[Array, "time batch"],
    ) -> tuple[Float[Array, "time batch hidden"], Float[Array, "batch hidden"]]:
        activations = self.gate_activation, self.cell_activation
        return gru_sequence(inputs, self.recurrent_kernel, self.recurrent_bias, carry, resets, *activations)


class ElmanCell(Cell):
    """Elman's network, Keras's SimpleRNN: no gates."""

    parts = 1

    def step(
        self, projected: Float[Array, "batch gates"], carry: Float[Array, "batch hidden"]
    ) -> tuple[Float[Array, "batch hidden"], Float[Array, "batch hidden"]]:
        carry = elman_step(projected, self.recurrent_kernel, carry, self.cell_activation)
        return carry, carry

    def sequence(
        self,
        inputs: LayerInputs,
        carry: Float[Array, "batch hidden"],
        resets: Bool[Array, "time batch"],
    ) -> tuple[Float[Array, "time batch hidden"], Float[Array, "batch hidden"]]:
        return elman_sequence(inputs, self.recurrent_kernel, carry, resets, self.cell_activation)


CELLS: dict[CellName, type[Cell]] = {"lstm": LSTMCell, "gru": GRUCell, "elman": ElmanCell}
