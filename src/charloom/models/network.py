"""The network: an embedding, recurrent layers, and a head whose outputs are logits.

The embedding is folded into the first layer's input projection: their product is a table with a row
for each token, so that a step looks its projection up and the table's gradient is a segment sum.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.nn.initializers import glorot_uniform
from jaxtyping import Array, Bool, Float, Int32, Key

from charloom.models.cells import CELLS, Cell
from charloom.settings import NetworkSettings

Carry = tuple[Any, ...]
"""The state of a network: each layer's carry, with a row for each lane."""


class Head(eqx.Module):
    """The affine map from the last layer's outputs to logits."""

    kernel: Float[Array, "hidden vocab"]
    bias: Float[Array, " vocab"]

    def __call__(self, hidden: Float[Array, "*batch hidden"]) -> Float[Array, "*batch vocab"]:
        return hidden @ self.kernel + self.bias


class Network(eqx.Module):
    """A character model without its vocabulary: token ids in, logits of the next token out.

    Attributes:
        embedding: a row for each token.
        cells: the recurrent layers, first to last.
        head: from the last layer's outputs to logits.
        start_id: the token that a text begins after; None for a zero vector.
    """

    embedding: Float[Array, "vocab embed"]
    cells: tuple[Cell, ...]
    head: Head
    start_id: int | None = eqx.field(static=True)

    @classmethod
    def init(cls, settings: NetworkSettings, vocab_size: int, start_id: int | None, key: Key[Array, ""]) -> "Network":
        """Returns a network with fresh weights, initialized as Keras initializes them."""
        embedding_key, head_key, *cell_keys = jax.random.split(key, 2 + settings.layers)
        input_sizes = [settings.embedding] + [settings.hidden] * (settings.layers - 1)
        cell = CELLS[settings.cell]
        return cls(
            embedding=jax.random.uniform(embedding_key, (vocab_size, settings.embedding), minval=-0.05, maxval=0.05),
            cells=tuple(
                cell.init(size, settings.hidden, cell_key)
                for size, cell_key in zip(input_sizes, cell_keys, strict=True)
            ),
            head=Head(
                kernel=glorot_uniform()(head_key, (settings.hidden, vocab_size)),
                bias=jnp.zeros(vocab_size),
            ),
            start_id=start_id,
        )

    @property
    def vocab_size(self) -> int:
        return self.embedding.shape[0]

    @property
    def parameters(self) -> int:
        """The number of trained weights."""
        return sum(array.size for array in jax.tree.leaves(self))

    def zero_carry(self, lanes: int) -> Carry:
        """Returns the state before a text begins."""
        return tuple(cell.zero_carry(lanes) for cell in self.cells)

    @property
    def start_row(self) -> int:
        """The row of `projection_table` that stands for the start input."""
        return self.vocab_size if self.start_id is None else self.start_id

    def projection_table(self) -> Float[Array, "rows gates"]:
        """Returns the first layer's projected input for each token; one more row where texts begin after zeros."""
        embedding = self.embedding
        if self.start_id is None:
            embedding = jnp.concatenate([embedding, jnp.zeros_like(embedding[:1])])
        return self.cells[0].project(embedding)

    def __call__(
        self,
        token_ids: Int32[Array, "time lanes"],
        resets: Bool[Array, "time lanes"],
        carry: Carry,
        dropout_masks: tuple[Float[Array, "lanes hidden"], ...] | None = None,
    ) -> tuple[Float[Array, "time lanes vocab"], Carry]:
        """Returns the logits after each step and the last carry.

        Args:
            token_ids: the inputs, time first.
            resets: where True a text begins: the state is zeroed, and the start input stands in
                for the token given.
            carry: the state before the first step.
            dropout_masks: factors for each layer's outputs, the same for all steps.
        """
        rows = jnp.where(resets, self.start_row, token_ids)
        # Rows are in bounds by construction; clipping is the mode that costs nothing to check.
        projected = jnp.take(self.projection_table(), rows, axis=0, mode="clip")
        last = []
        for layer, cell in enumerate(self.cells):
            hidden, cell_carry = cell.sequence(projected, carry[layer], resets)
            if dropout_masks is not None:
                hidden = hidden * dropout_masks[layer]
            last.append(cell_carry)
            if layer + 1 < len(self.cells):
                projected = self.cells[layer + 1].project(hidden)
        return self.head(hidden), tuple(last)

    def step(
        self, table: Float[Array, "rows gates"], rows: Int32[Array, " lanes"], carry: Carry
    ) -> tuple[Float[Array, "lanes vocab"], Carry]:
        """Returns the logits and the carry after one step, whose inputs are `rows` of the `projection_table`."""
        projected = table[rows]
        last = []
        for layer, cell in enumerate(self.cells):
            hidden, cell_carry = cell.step(projected, carry[layer])
            last.append(cell_carry)
            if layer + 1 < len(self.cells):
                projected = self.cells[layer + 1].project(hidden)
        return self.head(hidden), tuple(last)


def draw_dropout_masks(
    network: Network, rate: float, lanes: int, key: Key[Array, ""]
) -> tuple[Float[Array, "lanes hidden"], ...] | None:
    """Returns a mask for each layer's outputs, 0 with probability `rate` and else 1 / (1 - rate).

    A mask holds for a whole unroll: drawn a step, it would cost a small network as much as its arithmetic.
    Source: Gal and Ghahramani, 2016. None where the rate is 0.
    """
    if rate == 0:
        return None
    keys = jax.random.split(key, len(network.cells))
    return tuple(
        jax.random.bernoulli(mask_key, 1 - rate, (lanes, cell.recurrent_kernel.shape[0])) / (1 - rate)
        for mask_key, cell in zip(keys, network.cells, strict=True)
    )
