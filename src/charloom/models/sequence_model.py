"""What training, scoring and checkpoints need of a model."""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Bool, Float, Int32, Key

Carry = tuple[Any, ...]
"""The state of a model: each layer's carry, one row per row of the batch; empty for a model without state."""

DropoutMasks = tuple[Float[Array, "batch hidden"], ...] | None


class SequenceModel(eqx.Module):
    """Token ids in, logits of the next token out."""

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
        """Returns the logits after each step, or after the last one only, and the last carry.

        Args:
            token_ids: the inputs, time first.
            resets: where True a text begins: the state is zeroed, and the start input stands in
                for the token given.
            carry: the state before the first step.
            dropout_masks: factors for each layer's outputs, the same for all steps.
            last_only: whether only the last step predicts.
        """

    @abstractmethod
    def zero_carry(self, batch_size: int) -> Carry:
        """Returns the state before a text begins."""

    @property
    @abstractmethod
    def layer_sizes(self) -> tuple[int, ...]:
        """How many outputs each layer has that dropout may mask."""

    @property
    def parameters(self) -> int:
        """The number of trained weights."""
        return sum(array.size for array in jax.tree.leaves(self))


def draw_dropout_masks(model: SequenceModel, rate: float, batch_size: int, key: Key[Array, ""]) -> DropoutMasks:
    """Returns a mask for each layer's outputs, 0 with probability `rate` and else 1 / (1 - rate).

    A mask holds for a whole sequence: drawn per step, it would cost a small network as much as its arithmetic.
    Source: Gal and Ghahramani, 2016. None where the rate is 0.
    """
    if rate == 0:
        return None
    keys = jax.random.split(key, len(model.layer_sizes))
    return tuple(
        jax.random.bernoulli(mask_key, 1 - rate, (batch_size, size)) / (1 - rate)
        for mask_key, size in zip(keys, model.layer_sizes, strict=True)
    )
