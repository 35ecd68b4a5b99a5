"""Samples a token from logits, with counter-based random numbers."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.random import threefry_2x32
from jaxtyping import Array, Float, Int32, Shaped, UInt32

from charloom.kernels import SAMPLER_RECORD
from charloom.settings import SamplingSettings


def uniforms(
    seed: UInt32[Array, "2"], stream: UInt32[Array, ""], positions: UInt32[Array, " time"]
) -> Float[Array, " time"]:
    """Returns a number in [0, 1) for each position of a stream, a multiple of 2**-24.

    It is the first word of Threefry-2x32, with the seed (high word, low word) as key and (stream, position) as counter.
    It depends on nothing else, so a stream's text does not depend on other streams or on the block size.

    Source: Salmon, Moraes, Dror and Shaw, 2011 (Threefry).
    """
    counters = jnp.concatenate([jnp.broadcast_to(stream, positions.shape), positions])
    words = threefry_2x32(seed, counters)[: positions.shape[0]]
    return (words >> 8).astype(jnp.float32) * 2.0**-24


def seed_words(seed: int) -> UInt32[np.ndarray, "2"]:
    """Returns a seed as two words, as `uniforms` takes it."""
    return np.array([seed >> 32, seed & 0xFFFFFFFF], np.uint32)


_GREEDY_BELOW = 1e-30  # temperatures that are too small to divide by in float32 count as zero


class SamplingRule(NamedTuple):
    """`SamplingSettings` as arguments of a compiled program. Other values do not compile it again.

    Attributes:
        temperature: divides the logits; None for greedy decoding.
        top_k: number of tokens to keep; None for all.
        top_p: share of the probability to keep; None for all tokens.
    """

    temperature: Float[Array, ""] | np.float32 | None
    top_k: Int32[Array, ""] | np.int32 | None
    top_p: Float[Array, ""] | np.float32 | None

    @classmethod
    def of(cls, settings: SamplingSettings) -> "SamplingRule":
        """Returns the rule for `settings`."""
        if settings.temperature < _GREEDY_BELOW:
            return cls(None, None, None)
        return cls(
            np.float32(settings.temperature),
            None if settings.top_k is None else np.int32(min(settings.top_k, np.iinfo(np.int32).max)),
            None if settings.top_p is None or np.float32(settings.top_p) >= 1 else np.float32(settings.top_p),
        )


def native_samplers(
    settings: SamplingSettings, seed: int, stream_indexes: Sequence[int], position: int = 0
) -> Shaped[np.ndarray, " streams"]:
    """Returns a `SAMPLER_RECORD` per stream. With it, native streams sample like `choose`, from `position` on."""
    samplers = np.repeat(_native_rule(settings), len(stream_indexes))
    samplers["seed"] = seed >> 32, seed & 0xFFFFFFFF
    samplers["stream"] = stream_indexes
    samplers["position"] = position
    return samplers


@lru_cache
def _native_rule(settings: SamplingSettings) -> Shaped[np.ndarray, "1"]:
    """Returns a record that has only the rule of `settings`."""
    rule = SamplingRule.of(settings)
    record = np.zeros(1, SAMPLER_RECORD)
    record["temperature"] = -1 if rule.temperature is None else rule.temperature
    record["top_k"] = 0 if rule.top_k is None else rule.top_k
    # The same as `_fixed_point`, but without JAX, which native generation does not need.
    record["top_p"] = 0 if rule.top_p is None else max(1, int(rule.top_p * np.float32(2**24)) << 8)
    record["steps_per_nat"] = _STEPS_PER_NAT
    record["coarse"], record["fine"] = _COARSE.ctypes.data, _FINE.ctypes.data
    return record


def choose(logits: Float[Array, " vocab"], uniform: Float[Array, ""], rule: SamplingRule) -> Int32[Array, ""]:
    """Returns the token that `uniform` selects when the remaining tokens share [0, 1) by their probabilities.

    The temperature divides the logits. Then `top_k` and `top_p` filter the tokens, in this order.
    Among tokens with equal logits, the lower id comes first. `uniform` is a multiple of 2**-24.

    Source: inverse transform sampling; top-p: Holtzman et al., 2020.
    """
    if rule.temperature is None:
        return jnp.argmax(logits).astype(jnp.int32)
    cumulative = jnp.cumsum(_filtered(_weights(logits, jnp.asarray(rule.temperature)), logits, rule))
    point = _high_product(cumulative[-1], _fixed_point(uniform))
    return jnp.argmax(cumulative > point).astype(jnp.int32)


# Weights are whole numbers: every program that computes them from the same logits gets the same weights and exact sums.
# A weight is 2**30 times 2 to the power of minus the distance from the largest logit, in steps of 2**-22.
_STEP_BITS = 22
_TABLE_BITS = _STEP_BITS // 2
_STEPS_PER_NAT = np.float32(2**_STEP_BITS / np.log(2))
_NO_STEPS = 31 << _STEP_BITS  # from here on, a weight is zero
_COARSE, _FINE = (
    np.round(2.0**31 * 2.0 ** -(np.arange(2**_TABLE_BITS) / 2.0**bits)).astype(np.uint32)
    for bits in (_TABLE_BITS, _STEP_BITS)
)


def _weights(logits: Float[Array, " vocab"], temperature: Float[Array, ""]) -> UInt32[Array, " vocab"]:
    """Returns the tokens' weights, proportional to the softmax. NaN logits have weight zero.

    The weights are halved until their sum fits into 32 bits.
    """
    distance = (logits.max() - logits) / temperature * _STEPS_PER_NAT
    steps = jnp.where(distance < _NO_STEPS, distance, _NO_STEPS).astype(jnp.uint32)
    mask = 2**_TABLE_BITS - 1
    coarse, fine = jnp.asarray(_COARSE)[(steps >> _TABLE_BITS) & mask], jnp.asarray(_FINE)[steps & mask]
    weights = _high_product(coarse, fine) >> (steps >> _STEP_BITS)
    upper_halves = (weights >> 16).sum(dtype=jnp.uint32) + len(logits)
    return weights >> jnp.maximum(16, 32 - lax.clz(upper_halves)).astype(jnp.uint32) - 16


def _filtered(
    weights: UInt32[Array, " vocab"], logits: Float[Array, " vocab"], rule: SamplingRule
) -> UInt32[Array, " vocab"]:
    """Returns the weights, with zeros for the tokens that the rule removes."""
    if rule.top_k is None and rule.top_p is None:
        return weights
    order = jnp.argsort(-logits, stable=True)
    descending = weights[order]
    if rule.top_k is not None:
        descending = jnp.where(jnp.arange(len(order)) < rule.top_k, descending, 0)
    if rule.top_p is not None:
        reached = jnp.cumsum(descending)
        # A token is kept if the tokens before it do not reach p. The first one is always kept, however small p is.
        kept = reached - descending < _high_product(reached[-1], _fixed_point(jnp.asarray(rule.top_p)))
        descending = jnp.where(kept.at[0].set(True), descending, 0)
    return jnp.zeros_like(weights).at[order].set(descending)


def _fixed_point(share: Float[Array, ""]) -> UInt32[Array, ""]:
    """Returns a share in [0, 1) as a multiple of 2**-32."""
    return (share * 2**24).astype(jnp.uint32) << 8


def _high_product(a: UInt32[Array, "*batch"], b: UInt32[Array, "*batch"]) -> UInt32[Array, "*batch"]:
    """Returns the upper 32 bits of the 64-bit product."""
    a, b = jnp.asarray(a), jnp.asarray(b)
    a_high, a_low, b_high, b_low = a >> 16, a & 0xFFFF, b >> 16, b & 0xFFFF
    middle = (a_low * b_low >> 16) + (a_high * b_low & 0xFFFF) + (a_low * b_high & 0xFFFF)
    return a_high * b_high + (a_high * b_low >> 16) + (a_low * b_high >> 16) + (middle >> 16)
