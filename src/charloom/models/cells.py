"""Recurrent cells, and a table of them by name. A new cell needs one class, and one entry in `charloom.cell_facts`.

A cell holds its weights. The computation over time is in `charloom.kernels`.
"""

from abc import abstractmethod
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from charloom.cell_facts import CELL_FACTS, CellFacts, CellName
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
    mingru_sequence,
    mingru_step,
)
from charloom.models.initializers import glorot_uniform, orthogonal, zeros
from charloom.settings import CellActivation, GateActivation, Precision


class Cell(eqx.Module):
    """One recurrent layer.

    As in Keras, kernels are initialized Glorot-uniform, recurrent kernels orthogonal, and biases zero.

    Attributes:
        kernel: the weights of the input; `gates` is the number of gates times `hidden`.
        bias: added to the product of inputs and kernel.
        gate_activation: the activation of the gates, for cells that have gates.
        cell_activation: the activation of the candidate or output, for cells that have one.
        precision: the precision of the factors of a sequence's products.
        facts: what the rest of the program knows about the cell.
    """

    kernel: eqx.AbstractVar[Float[Array, "input gates"]]
    bias: eqx.AbstractVar[Float[Array, " gates"]]
    gate_activation: eqx.AbstractVar[GateActivation]
    cell_activation: eqx.AbstractVar[CellActivation]
    precision: eqx.AbstractVar[Precision]

    facts: ClassVar[CellFacts]

    @classmethod
    def init(
        cls,
        input_size: int,
        hidden: int,
        rng: np.random.Generator | None,
        gate_activation: GateActivation = "sigmoid",
        cell_activation: CellActivation = "tanh",
    ) -> "Cell":
        """Returns a cell with initial weights drawn from `rng`; zeros without `rng`."""
        weights: dict[str, Any] = cls.initial_weights(hidden, rng)
        return cls(
            kernel=glorot_uniform(rng, (input_size, cls.facts.gate_count * hidden)),
            gate_activation=gate_activation,
            cell_activation=cell_activation,
            **weights,
        )

    @classmethod
    def initial_weights(cls, hidden: int, rng: np.random.Generator | None) -> dict[str, Float[Array, "..."]]:
        """Returns the initial weights except the kernel, by field name."""
        return {"bias": zeros(cls.facts.gate_count * hidden)}

    @abstractmethod
    def step(self, projected: Float[Array, "batch gates"], carry: Any) -> tuple[Float[Array, "batch hidden"], Any]:
        """Returns the output and the carry after one time step with a projected input."""

    @abstractmethod
    def sequence(
        self, inputs: LayerInputs, carry: Any, resets: Bool[Array, "time batch"]
    ) -> tuple[Float[Array, "time batch hidden"], Any]:
        """Returns the outputs of all time steps and the last carry. The state is zeroed before steps with a reset."""

    @property
    def hidden(self) -> int:
        """The number of units of the layer."""
        return self.bias.shape[-1] // self.facts.gate_count

    def zero_carry(self, batch_size: int) -> Any:
        """Returns the state before a text begins: zeros for each batch row."""
        return jnp.zeros((batch_size, self.hidden), self.bias.dtype)

    def project(self, inputs: Float[Array, "*batch input"]) -> Float[Array, "*batch gates"]:
        """Returns inputs · kernel + bias."""
        return inputs @ self.kernel + self.bias

    def features(self, values: Float[Array, "time batch input"]) -> Features:
        """Returns `values` as inputs for `sequence`."""
        return Features(values, self.kernel, self.bias)


class CellWithRecurrentKernel(Cell):
    """A cell that multiplies its state by a kernel.

    Attributes:
        recurrent_kernel: the weights of the state.
    """

    kernel: Float[Array, "input gates"]
    recurrent_kernel: Float[Array, "hidden gates"]
    bias: Float[Array, " gates"]
    gate_activation: GateActivation = eqx.field(static=True)
    cell_activation: CellActivation = eqx.field(static=True)
    precision: Precision = eqx.field(static=True, default="float32", kw_only=True)

    @classmethod
    def initial_weights(cls, hidden: int, rng: np.random.Generator | None) -> dict[str, Float[Array, "..."]]:
        recurrent_kernel = orthogonal(rng, (hidden, cls.facts.gate_count * hidden))
        return {"recurrent_kernel": recurrent_kernel, **super().initial_weights(hidden, rng)}


class LSTMCell(CellWithRecurrentKernel):
    """Long short-term memory, with gates in the order input, forget, candidate, output, as in Keras.

    The forget gate's bias is initialized to one.
    Source: Jozefowicz, Zaremba and Sutskever, 2015 (the forget bias).
    """

    facts = CELL_FACTS["lstm"]

    @classmethod
    def initial_weights(cls, hidden: int, rng: np.random.Generator | None) -> dict[str, Float[Array, "..."]]:
        is_forget = np.array([gate == "forget" for gate in cls.facts.gates], np.float32)
        return super().initial_weights(hidden, rng) | {"bias": jnp.asarray(np.repeat(is_forget, hidden))}

    def zero_carry(self, batch_size: int) -> LSTMCarry:
        # These must be two arrays, because a buffer can be donated only once.
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
        return lstm_sequence(inputs, self.recurrent_kernel, carry, resets, *activations, self.precision)


class GRUCell(CellWithRecurrentKernel):
    """Gated recurrent unit, with gates in the order update, reset, candidate, as in Keras.

    Attributes:
        recurrent_bias: added to the recurrent product, before the reset gate.
    """

    recurrent_bias: Float[Array, " gates"]

    facts = CELL_FACTS["gru"]

    @classmethod
    def initial_weights(cls, hidden: int, rng: np.random.Generator | None) -> dict[str, Float[Array, "..."]]:
        return super().initial_weights(hidden, rng) | {"recurrent_bias": zeros(cls.facts.gate_count * hidden)}

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
        settings = self.gate_activation, self.cell_activation, self.precision
        return gru_sequence(inputs, self.recurrent_kernel, self.recurrent_bias, carry, resets, *settings)


class ElmanCell(CellWithRecurrentKernel):
    """Elman network (SimpleRNN in Keras), without gates."""

    facts = CELL_FACTS["elman"]

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
        return elman_sequence(inputs, self.recurrent_kernel, carry, resets, self.cell_activation, self.precision)


class MinGRUCell(Cell):
    """Minimal gated recurrent unit, with gates in the order update, candidate. The candidate is linear."""

    kernel: Float[Array, "input gates"]
    bias: Float[Array, " gates"]
    gate_activation: GateActivation = eqx.field(static=True)
    cell_activation: CellActivation = eqx.field(static=True)
    precision: Precision = eqx.field(static=True, default="float32", kw_only=True)

    facts = CELL_FACTS["mingru"]

    def step(
        self, projected: Float[Array, "batch gates"], carry: Float[Array, "batch hidden"]
    ) -> tuple[Float[Array, "batch hidden"], Float[Array, "batch hidden"]]:
        carry = mingru_step(projected, carry, self.gate_activation)
        return carry, carry

    def sequence(
        self,
        inputs: LayerInputs,
        carry: Float[Array, "batch hidden"],
        resets: Bool[Array, "time batch"],
    ) -> tuple[Float[Array, "time batch hidden"], Float[Array, "batch hidden"]]:
        return mingru_sequence(inputs, carry, resets, self.gate_activation, self.precision)


CELLS: dict[CellName, type[Cell]] = {kind.facts.name: kind for kind in (LSTMCell, GRUCell, ElmanCell, MinGRUCell)}
