"""Facts about each recurrent cell. They need no JAX, so settings, estimates and help pages can use them.

A new cell needs an entry here, a class in `charloom.models.cells`, and a file with its reference kernel in
`charloom.kernels`. It runs on the reference until it also has native kernels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

CellName = Literal["lstm", "gru", "elman", "mingru"]


@dataclass(frozen=True, kw_only=True)
class CellFacts:
    """One cell.

    Attributes:
        name: its name in settings, model files and native operations.
        label: its name for people.
        keras_name: the name of the same layer in Keras; None if Keras has none.
        gates: a unit's pre-activations, in the order of the columns of its kernels and biases.
        states: what it carries between time steps. The first is also the layer's output.
        has_recurrent_kernel: whether the state is multiplied by a kernel.
        has_recurrent_bias: whether a bias is added to that product.
        has_gate_activation: whether the setting `gate_activation` applies.
        has_cell_activation: whether the setting `cell_activation` applies.
        kept_floats: floats that a training step stores per character and unit: activations, their gradients, and the
            state.
        elementwise_cost: work per unit besides products, in products that take as long. It counts only for cells
            without a recurrent product, next to which it would be small.
        native_id: the number of its generator in the native library (`cpp/generator.cc`); None if it has no native
            kernels.
    """

    name: CellName
    label: str
    keras_name: str | None = None
    gates: tuple[str, ...]
    states: tuple[str, ...] = ("hidden",)
    has_recurrent_kernel: bool = True
    has_recurrent_bias: bool = False
    has_gate_activation: bool = True
    has_cell_activation: bool = True
    kept_floats: int
    elementwise_cost: int = 0
    native_id: int | None = None

    @property
    def gate_count(self) -> int:
        """The number of pre-activations of a unit."""
        return len(self.gates)

    def cost(self, hidden: int, layers: int) -> int:
        """Returns how many weights of the layers a character is multiplied by, plus other work in the same unit.

        The first layer's input costs no product, because it is a row of a table.

        >>> CELL_FACTS["lstm"].cost(hidden=10, layers=1)
        400
        """
        kernels = layers - 1 + layers * self.has_recurrent_kernel
        return kernels * self.gate_count * hidden**2 + layers * hidden * self.elementwise_cost


CELL_FACTS: Mapping[CellName, CellFacts] = {
    facts.name: facts
    for facts in (
        CellFacts(
            name="lstm",
            label="LSTM",
            keras_name="LSTM",
            gates=("input", "forget", "candidate", "output"),
            states=("hidden", "cell"),
            kept_floats=8,
            native_id=0,
        ),
        CellFacts(
            name="gru",
            label="GRU",
            keras_name="GRU",
            gates=("update", "reset", "candidate"),
            has_recurrent_bias=True,
            kept_floats=7,
            native_id=1,
        ),
        CellFacts(
            name="elman",
            label="Elman",
            keras_name="SimpleRNN",
            gates=("output",),
            has_gate_activation=False,
            kept_floats=4,
            native_id=2,
        ),
        CellFacts(
            name="mingru",
            label="minGRU",
            gates=("update", "candidate"),
            has_recurrent_kernel=False,
            has_cell_activation=False,
            kept_floats=9,
            elementwise_cost=256,
        ),
    )
}
