"""The network: an embedding, recurrent layers, and a head that gives logits.

Inputs are embeddings, one-hot vectors or scalars. They are folded into the first layer's input projection: their
product is a table with one row per token. A time step looks up its row, and the table's gradient is a segment sum.
"""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32, Key

from charloom.errors import SettingError
from charloom.kernels import LayerInputs, Rows, dense, require_own_process
from charloom.models.cells import CELLS, Cell, CellWithRecurrentKernel
from charloom.models.initializers import glorot_uniform, uniform, zeros
from charloom.models.sequence_model import Carry, DropoutMasks, SequenceModel
from charloom.settings import Inputs, NetworkSettings, Precision


class Dense(eqx.Module):
    """An affine map, used as the head from the last layer's outputs to logits."""

    kernel: Float[Array, "input output"]
    bias: Float[Array, " output"]
    precision: Precision = eqx.field(static=True, default="float32")

    @classmethod
    def init(cls, input_size: int, output_size: int, rng: np.random.Generator | None) -> "Dense":
        """Returns a layer with a Glorot-uniform kernel and a zero bias."""
        return cls(glorot_uniform(rng, (input_size, output_size)), zeros(output_size))

    def __call__(self, inputs: Float[Array, "*batch input"]) -> Float[Array, "*batch output"]:
        return dense(inputs, self.kernel, self.bias, self.precision)


class LogitsHead(eqx.Module):
    """The identity: the last layer's outputs are the logits."""

    def __call__(self, hidden: Float[Array, "*batch vocab"]) -> Float[Array, "*batch vocab"]:
        return hidden


class ProbabilitiesHead(eqx.Module):
    """The logarithm of the last layer's outputs, which are treated as probabilities.

    They are divided by their sum and clipped to [1e-7, 1 - 1e-7] before the logarithm. Keras's categorical
    cross-entropy does the same with the output of a softmax.
    """

    def __call__(self, hidden: Float[Array, "*batch vocab"]) -> Float[Array, "*batch vocab"]:
        probabilities = hidden / hidden.sum(axis=-1, keepdims=True)
        return jnp.log(jnp.clip(probabilities, 1e-7, 1 - 1e-7))


Head = Dense | LogitsHead | ProbabilitiesHead


class Network(SequenceModel):
    """A character model without its vocabulary: it maps token ids to logits of the next token.

    Attributes:
        embedding: one row per token; None if the inputs are one-hot or scalar.
        cells: the recurrent layers, first to last.
        head: maps the last layer's outputs to logits.
        inputs: how the first layer represents a token.
        vocab_size: the number of tokens.
        start_id: the token that every text begins after; None for a zero vector.
    """

    embedding: Float[Array, "vocab embed"] | None
    cells: tuple[Cell, ...]
    head: Head
    inputs: Inputs = eqx.field(static=True)
    vocab_size: int = eqx.field(static=True)
    start_id: int | None = eqx.field(static=True)

    @classmethod
    def init(
        cls, settings: NetworkSettings, vocab_size: int, start_id: int | None, rng: np.random.Generator | None
    ) -> "Network":
        """Returns a network with initial weights drawn from `rng` as in Keras; zeros without `rng`.

        Raises:
            SettingError: the last layer's outputs are the logits or probabilities, but their number is not the
                vocabulary size.
        """
        if settings.head != "dense" and settings.hidden != vocab_size:
            raise SettingError(
                "hidden",
                f"must be {vocab_size}, the size of the vocabulary, when the head is {settings.head!r}; "
                f"got {settings.hidden}",
            )
        require_own_process()
        embedding = uniform(rng, (vocab_size, settings.embedding), 0.05) if settings.inputs == "embedding" else None
        input_sizes = [_input_size(settings, vocab_size)] + [settings.hidden] * (settings.layers - 1)
        cells = tuple(
            CELLS[settings.cell].init(size, settings.hidden, rng, settings.gate_activation, cell_activation)
            for size, cell_activation in zip(input_sizes, settings.cell_activations, strict=True)
        )
        head = _make_head(settings, vocab_size, rng)
        return cls(embedding, cells, head, settings.inputs, vocab_size, start_id)

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        return tuple(cell.hidden for cell in self.cells)

    def zero_carry(self, batch_size: int) -> Carry:
        require_own_process()
        return tuple(cell.zero_carry(batch_size) for cell in self.cells)

    @property
    def start_row(self) -> int:
        """The row of `projection_table` for the start input."""
        return self.vocab_size if self.start_id is None else self.start_id

    def projection_table(self) -> Float[Array, "rows gates"]:
        """Returns the first layer's projected input for each token, and for a zero vector if texts begin after one.

        For one-hot inputs the table is the kernel plus the bias, because a product would only select rows.
        """
        cell = self.cells[0]
        if self.embedding is not None:
            table = cell.project(self.embedding)
        elif self.inputs == "scalar":
            table = cell.project(self._scalars(jnp.arange(self.vocab_size)))
        else:
            table = cell.kernel + cell.bias
        return table if self.start_id is not None else jnp.concatenate([table, cell.bias[None]])

    def __call__(
        self,
        token_ids: Int32[Array, "time batch"],
        resets: Bool[Array, "time batch"],
        carry: Carry,
        dropout_masks: DropoutMasks = None,
        *,
        last_only: bool = False,
    ) -> tuple[Float[Array, "predicted batch vocab"], Carry]:
        outputs, last = self.outputs(token_ids, resets, carry, dropout_masks)
        return self.head(outputs[-1][-1:] if last_only else outputs[-1]), last

    def outputs(
        self,
        token_ids: Int32[Array, "time batch"],
        resets: Bool[Array, "time batch"],
        carry: Carry,
        dropout_masks: DropoutMasks = None,
    ) -> tuple[tuple[Float[Array, "time batch hidden"], ...], Carry]:
        """Returns each layer's outputs after each time step, and the last carry."""
        rows = jnp.where(resets, self.start_row, token_ids)
        if self.inputs == "scalar":
            inputs: LayerInputs = self.cells[0].features(self._scalars(rows))  # cheaper than the gradient of a table
        else:
            inputs = Rows(rows, self.projection_table())
        outputs, last = [], []
        for layer, cell in enumerate(self.cells):
            hidden, cell_carry = cell.sequence(inputs, carry[layer], resets)
            if dropout_masks is not None:
                hidden = hidden * dropout_masks[layer]
            outputs.append(hidden)
            last.append(cell_carry)
            if layer + 1 < len(self.cells):
                inputs = self.cells[layer + 1].features(hidden)
        return tuple(outputs), tuple(last)

    def with_precision(self, precision: Precision) -> "Network":
        """Returns the network with the same float32 weights, whose sequences multiply factors of `precision`."""
        cells = tuple(replace(cell, precision=precision) for cell in self.cells)
        head = replace(self.head, precision=precision) if isinstance(self.head, Dense) else self.head
        return replace(self, cells=cells, head=head)

    def with_weight_dropout(self, share: float, key: Key[Array, ""]) -> "Network":
        """Returns the network with dropout on its recurrent weights.

        The remaining weights are scaled by 1 / (1 - share). The share is rounded to a multiple of 1/256.
        Source: Wan et al., 2013 (DropConnect); Merity, Keskar and Socher, 2018 (recurrent weights).

        Raises:
            SettingError: a cell has no recurrent weights.
        """

        def dropped_out(cell: Cell, key: Key[Array, ""]) -> Cell:
            if not isinstance(cell, CellWithRecurrentKernel):
                raise SettingError("weight_dropout", f"applies to recurrent weights; {cell.facts.name} has none")
            kernel = cell.recurrent_kernel
            # One random byte per weight: drawing 32-bit numbers would take as long as a third of a step.
            dropped = jax.random.bits(key, kernel.shape, jnp.uint8) < of_256
            return replace(cell, recurrent_kernel=jnp.where(dropped, 0, kernel * (256 / (256 - of_256))))

        of_256 = round(256 * share)
        keys = jax.random.split(key, len(self.cells))
        return replace(self, cells=tuple(map(dropped_out, self.cells, keys)))

    def _scalars(self, rows: Int32[Array, "*batch"]) -> Float[Array, "*batch 1"]:
        # Ids are smaller than the vocabulary size. The next row is the start input, which is zero.
        return jnp.where(rows < self.vocab_size, rows / self.vocab_size, 0)[..., None]

    def step(
        self, table: Float[Array, "rows gates"], rows: Int32[Array, " batch"], carry: Carry
    ) -> tuple[Float[Array, "batch vocab"], Carry]:
        """Returns the logits and the carry after one time step whose inputs are `rows` of the `projection_table`."""
        projected = table[rows]
        last = []
        for layer, cell in enumerate(self.cells):
            hidden, cell_carry = cell.step(projected, carry[layer])
            last.append(cell_carry)
            if layer + 1 < len(self.cells):
                projected = self.cells[layer + 1].project(hidden)
        return self.head(hidden), tuple(last)


def _input_size(settings: NetworkSettings, vocab_size: int) -> int:
    return {"embedding": settings.embedding, "one-hot": vocab_size, "scalar": 1}[settings.inputs]


def _make_head(settings: NetworkSettings, vocab_size: int, rng: np.random.Generator | None) -> Head:
    if settings.head == "logits":
        return LogitsHead()
    if settings.head == "probabilities":
        return ProbabilitiesHead()
    return Dense.init(settings.hidden, vocab_size, rng)
