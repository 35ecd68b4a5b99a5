"""The interface that training, scoring and checkpoints use for models."""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Bool, Float, Int32, Key

Carry = tuple[Any, ...]
"""The state of a model: each layer's carry, with one entry per batch row. It is empty for a model without state."""

DropoutMasks = tuple[Float[Array, "batch hidden"], ...] | None


class SequenceModel(eqx.Module):
    """A model that maps token ids to logits of the next token."""

    @abstractmethod
    def __call__(
        self,
        token_ids: Int32[Array, "time batch"],
        resets: Bool[Array, "time batch"],
        carry: Carry,
        dropout_masks: DropoutMasks = None,
        *,
        last_only: bool = False,
    ) -> tuple[Float[Array, "predicted batch vocab"], Carry]:
        """Returns the logits after each time step, or only after the last one, and the last carry.

        Args:
            token_ids: the inputs, time first.
            resets: where True, a text begins: the state is zeroed, and the start input replaces the given token.
            carry: the state before the first time step.
            dropout_masks: factors for each layer's outputs, the same for all time steps.
            last_only: whether to return only the logits after the last time step.
        """

    @abstractmethod
    def zero_carry(self, batch_size: int) -> Carry:
        """Returns the state before a text begins."""

    @property
    @abstractmethod
    def layer_sizes(self) -> tuple[int, ...]:
        """The number of outputs of each layer that dropout may mask."""

    @property
    def parameters(self) -> int:
        """The number of trained weights."""
        return sum(array.size for array in jax.tree.leaves(self))


def draw_dropout_masks(model: SequenceModel, rate: float, batch_size: int, key: Key[Array, ""]) -> DropoutMasks:
    """Returns a mask for each layer's outputs: 0 with probability `rate`, otherwise 1 / (1 - rate).

    The result is None if `rate` is 0. A mask is the same for a whole sequence. Drawing one per time step would take a
    small network as long as its arithmetic.
    Source: Gal and Ghahramani, 2016.
    """
    if rate == 0:
        return None
    keys = jax.random.split(key, len(model.layer_sizes))
    return tuple(
        jax.random.bernoulli(mask_key, 1 - rate, (batch_size, size)) / (1 - rate)
        for mask_key, size in zip(keys, model.layer_sizes, strict=True)
    )
