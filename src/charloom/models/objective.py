"""The loss: cross-entropy in nats, from logits and target tokens."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32


class Totals(NamedTuple):
    """Sums over scored predictions.

    Attributes:
        nats: the cross-entropy.
        correct: how often the target was the most likely token.
    """

    nats: Float[Array, "*batch"]
    correct: Float[Array, "*batch"]


def cross_entropy(logits: Float[Array, "*batch vocab"], targets: Int32[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Returns the cross-entropy of each target in nats: log(sum(exp(logits))) - logits[target]."""
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen


def _are_most_likely(logits: Float[Array, "*batch vocab"], targets: Int32[Array, "*batch"]) -> Bool[Array, "*batch"]:
    """Returns argmax(logits) == targets. It uses sums, which XLA computes several times faster than argmax on a CPU."""
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)
    earlier = jnp.arange(logits.shape[-1]) < targets[..., None]
    ahead = (logits > chosen) | ((logits == chosen) & earlier)
    return jnp.sum(ahead, axis=-1, dtype=logits.dtype) == 0


def sequence_totals(
    logits: Float[Array, "predicted batch vocab"],
    token_ids: Int32[Array, "time_plus_1 batch"],
    scored: Bool[Array, "time batch"],
) -> Totals:
    """Returns the totals of a sequence. The logits may be those of its last time steps only."""
    predicted = logits.shape[0]
    targets, scored = token_ids[-predicted:], scored[-predicted:]
    hits = _are_most_likely(logits, targets)
    return Totals(
        jnp.sum(jnp.where(scored, cross_entropy(logits, targets), 0)),
        jnp.sum(scored & hits, dtype=logits.dtype),
    )
