"""Choosing a character from logits, by counter-based random numbers."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.random import threefry_2x32
from jaxtyping import Array, Float, Int32, UInt32

from charloom.settings import SamplingSettings


def uniforms(
    seed: UInt32[Array, "2"], stream: UInt32[Array, ""], positions: UInt32[Array, " time"]
) -> Float[Array, " time"]:
    """Returns a number in [0, 1) for each position of a stream, a multiple of 2**-24.

    The first word of Threefry-2x32 with the seed (high word, low word) as its key and (stream,
    position) as its counter: a draw depends on nothing else, so that a stream's text is the same
    alone or among a thousand, and in one go or in pieces.
    Source: Salmon, Moraes, Dror and Shaw, 2011.
    """
    counters = jnp.concatenate([jnp.broadcast_to(stream, positions.shape), positions])
    words = threefry_2x32(seed, counters)[: positions.shape[0]]
    return (words >> 8).astype(jnp.float32) * 2.0**-24


_GREEDY_BELOW = 1e-30  # what float32 cannot divide by is as good as zero


class SamplingRule(NamedTuple):
    """`SamplingSettings` as a compiled program takes them: another number compiles nothing new.

    Attributes:
        temperature: None for the most likely character.
        top_k: None for all characters.
        top_p: None for all characters.
    """

    temperature: Float[Array, ""] | None
    top_k: Int32[Array, ""] | None
    top_p: Float[Array, ""] | None

    @classmethod
    def of(cls, settings: SamplingSettings) -> "SamplingRule":
        """Returns the rule that `settings` ask for."""
        if settings.temperature < _GREEDY_BELOW:
            return cls(None, None, None)
        return cls(
            jnp.float32(settings.temperature),
            None if settings.top_k is None else jnp.int32(settings.top_k),
            None if settings.top_p is None else jnp.float32(settings.top_p),
        )


def choose(logits: Float[Array, " vocab"], uniform: Float[Array, ""], rule: SamplingRule) -> Int32[Array, ""]:
    """Returns the token that `uniform` falls on when the tokens that are left share [0, 1) by their probabilities.

    The temperature divides the logits; then `top_k`, then `top_p` thin the tokens out. Of equal logits
    the lower token comes first.
    """
    if rule.temperature is None:
        return jnp.argmax(logits).astype(jnp.int32)
    # The largest becomes 0 before the division, so that a small temperature cannot overflow.
    logits = (logits - logits.max()) / rule.temperature
    probabilities = jax.nn.softmax(_thinned(logits, rule))
    left = probabilities > 0
    # XLA's cumulative sum need not be monotonic to the last bit, nor flat where nothing is added: only tokens that are
    # left may be chosen, and the threshold must stay below the largest of their sums.
    cumulative = jnp.where(left, jnp.cumsum(probabilities), 0)
    total = cumulative.max()
    threshold = jnp.minimum(uniform * total, jnp.nextafter(total, 0))
    return jnp.argmax(left & (cumulative > threshold)).astype(jnp.int32)


def _thinned(logits: Float[Array, " vocab"], rule: SamplingRule) -> Float[Array, " vocab"]:
    if rule.top_k is None and rule.top_p is None:
        return logits
    order = jnp.argsort(-logits, stable=True)
    kept = jnp.ones(logits.shape, bool)  # in descending order
    if rule.top_k is not None:
        kept = kept & (jnp.arange(logits.shape[0]) < rule.top_k)
    if rule.top_p is not None:
        probabilities = jax.nn.softmax(jnp.where(kept, logits[order], -jnp.inf))
        # Kept while those before it do not reach p; the first always, however small p is in float32.
        kept = kept & (jnp.cumsum(probabilities) - probabilities < rule.top_p)
        kept = kept.at[0].set(True)
    return jnp.where(jnp.zeros_like(kept).at[order].set(kept), logits, -jnp.inf)
