"""The objective: cross-entropy in nats, from logits and the tokens that came."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32


def cross_entropy(logits: Float[Array, "*batch vocab"], targets: Int32[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Returns the nats that each target costs: log(sum(exp(logits))) - logits[target]."""
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen


def masked_sum(values: Float[Array, "*batch"], scored: Bool[Array, "*batch"]) -> Float[Array, ""]:
    """Returns the sum of the scored values."""
    return jnp.sum(jnp.where(scored, values, 0))
