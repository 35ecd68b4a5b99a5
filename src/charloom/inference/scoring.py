"""Scoring blocks of text: mean loss and accuracy."""

from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int32

from charloom.data import Block
from charloom.kernels import compiled
from charloom.models import Carry, SequenceModel, Totals, sequence_totals


class MeanScore(NamedTuple):
    """Means over scored characters.

    Attributes:
        nats_per_char: Mean loss, in nats.
        accuracy: Share of the characters that the network considered the most likely ones.
    """

    nats_per_char: float
    accuracy: float


def score_blocks(
    network: SequenceModel, blocks: Iterable[Block], last_only: bool = False, carry: Carry | None = None
) -> MeanScore:
    """Returns the means over the scored characters of consecutive `blocks`.

    Sums are float32 within a sequence and float64 across sequences.

    Args:
        network: The network that predicts.
        blocks: The blocks to read, in order. The state is carried from one to the next.
        last_only: Score only the prediction after the last step of each sequence.
        carry: The state before the first block. None means zeros.
    """
    nats, correct, characters = 0.0, 0.0, 0
    for block in blocks:
        if carry is None:
            carry = network.zero_carry(block.resets.shape[1])
        totals, carry = _score_block(
            network,
            block.token_ids,
            block.resets,
            block.scored,
            block.state_resets,
            block.steps,
            carry,
            last_only=last_only,
        )
        nats += float(np.asarray(totals.nats, dtype=np.float64).sum())
        correct += float(np.asarray(totals.correct, dtype=np.float64).sum())
        characters += block.characters
    return MeanScore(nats / characters, correct / characters)


@partial(compiled, static_argnames="last_only")
def _score_block(
    network: SequenceModel,
    token_ids: Int32[Array, "capacity batch sequence_plus_1"],
    resets: Bool[Array, "capacity batch sequence"],
    scored: Bool[Array, "capacity batch sequence"],
    state_resets: Bool[Array, "capacity batch"],
    steps: Int32[Array, ""],
    carry: Carry,
    *,
    last_only: bool = False,
) -> tuple[Totals, Carry]:
    """Returns the totals of each sequence of a block, and the carry after it."""

    def sequence(index: Int32[Array, ""], state: tuple[Totals, Carry]) -> tuple[Totals, Carry]:
        totals, carry = state
        ids = token_ids[index].T
        carry = jax.tree.map(lambda state: jnp.where(state_resets[index][:, None], 0, state), carry)
        logits, carry = network(ids[:-1], resets[index].T, carry, last_only=last_only)
        of_sequence = sequence_totals(logits, ids, scored[index].T)
        return jax.tree.map(lambda sums, one: sums.at[index].set(one), totals, of_sequence), carry

    zeros = jnp.zeros(token_ids.shape[0], jnp.float32)
    return lax.fori_loop(0, steps, sequence, (Totals(zeros, zeros), carry))
