"""Scoring: the nats that a text costs a network."""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int32

from charloom.data import Block
from charloom.models import Carry, Network, cross_entropy, masked_sum


def mean_nats(network: Network, blocks: Iterable[Block]) -> float:
    """Returns the mean nats per scored character of `blocks`, which follow one another.

    Sums are float32 within an unroll and float64 beyond.
    """
    carry = None
    total_nats, characters = 0.0, 0
    for block in blocks:
        if carry is None:
            carry = network.zero_carry(block.resets.shape[1])
        nats, carry = _block_nats(network, block.token_ids, block.resets, block.scored, block.updates, carry)
        total_nats += float(np.asarray(nats, dtype=np.float64).sum())
        characters += block.characters
    return total_nats / characters


@jax.jit
def _block_nats(
    network: Network,
    token_ids: Int32[Array, "capacity lanes unroll_plus_1"],
    resets: Bool[Array, "capacity lanes unroll"],
    scored: Bool[Array, "capacity lanes unroll"],
    updates: Int32[Array, ""],
    carry: Carry,
) -> tuple[Float[Array, " capacity"], Carry]:
    def unroll(
        index: Int32[Array, ""], state: tuple[Float[Array, " capacity"], Carry]
    ) -> tuple[Float[Array, " capacity"], Carry]:
        nats, carry = state
        ids = token_ids[index].T
        logits, carry = network(ids[:-1], resets[index].T, carry)
        unroll_nats = masked_sum(cross_entropy(logits, ids[1:]), scored[index].T)
        return nats.at[index].set(unroll_nats), carry

    return lax.fori_loop(0, updates, unroll, (jnp.zeros(token_ids.shape[0]), carry))
