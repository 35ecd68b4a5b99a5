"""Generation: the prompt primes the state once, then each character is fed back, in one compiled loop.

Every stream runs through the same program on its own: a matrix product rounds a row differently in
company, and a stream's text must not depend on who else is written. See docs/design/generation.md.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int32, Integer, UInt32

from charloom.inference.sampling import SamplingRule, choose, uniforms
from charloom.models import Carry, Network
from charloom.settings import SamplingSettings

BLOCK = 64
"""Characters a call: few enough to stream smoothly, enough that calls cost nothing."""


class Stream(NamedTuple):
    """A text being written, between two characters.

    Attributes:
        table: the network's projection table, made once.
        logits: of the next token.
        carry: the state to go on from, of one lane; always zero for a window.
        window: the tokens that are read anew for each one that is written; None for a state that is carried on.
    """

    table: Float[Array, "rows gates"]
    logits: Float[Array, " vocab"]
    carry: Carry
    window: Int32[Array, " window"] | None = None


def read_prompt(network: Network, prompt: Integer[np.ndarray, " time"], window: int | None = None) -> Stream:
    """Returns the stream that has read the start input and then `prompt`, which may be empty.

    With a window it has read the last `window` tokens of the prompt alone, and will do so for each token after it.
    """
    if window is not None:
        ids = jnp.asarray(prompt[-window:], jnp.int32)
        return _read_window(network, Stream(_table(network), jnp.zeros(network.vocab_size), network.zero_carry(1), ids))
    rows = np.concatenate([[network.start_row], prompt]).astype(np.int32)
    stream = Stream(_table(network), jnp.zeros(network.vocab_size), network.zero_carry(1))
    for first in range(0, len(rows), BLOCK):
        piece = rows[first : first + BLOCK]
        stream = _read(network, stream, np.resize(piece, BLOCK), len(piece))
    return stream


def write(
    network: Network,
    stream: Stream,
    length: int,
    settings: SamplingSettings,
    seed: int,
    stream_index: int = 0,
) -> Iterator[Int32[np.ndarray, " block"]]:
    """Yields the next `length` token ids of `stream`, in blocks as they come.

    Args:
        seed: with the stream's index and the position, all that the random numbers depend on.
        stream_index: which of the texts written with this seed it is.
    """
    rule = SamplingRule.of(settings)
    seed_words = np.array([seed >> 32, seed & 0xFFFFFFFF], np.uint32)
    for position in range(0, length, BLOCK):
        count = min(BLOCK, length - position)
        token_ids, stream = _write(
            network, stream, rule, seed_words, np.uint32(stream_index), np.uint32(position), count
        )
        yield np.asarray(token_ids)[:count]


@jax.jit
def _table(network: Network) -> Float[Array, "rows gates"]:
    return network.projection_table()


@jax.jit
def _read(network: Network, stream: Stream, rows: Int32[Array, " block"], count: Int32[Array, ""]) -> Stream:
    def step(index: Int32[Array, ""], stream: Stream) -> Stream:
        return _advanced(network, stream, rows[index])

    return lax.fori_loop(0, count, step, stream)


@jax.jit
def _write(
    network: Network,
    stream: Stream,
    rule: SamplingRule,
    seed: UInt32[Array, "2"],
    stream_index: UInt32[Array, ""],
    position: UInt32[Array, ""],
    count: Int32[Array, ""],
) -> tuple[Int32[Array, " block"], Stream]:
    draws = uniforms(seed, stream_index, position + jnp.arange(BLOCK, dtype=jnp.uint32))

    def step(
        index: Int32[Array, ""], state: tuple[Int32[Array, " block"], Stream]
    ) -> tuple[Int32[Array, " block"], Stream]:
        token_ids, stream = state
        token_id = choose(stream.logits, draws[index], rule)
        return token_ids.at[index].set(token_id), _advanced(network, stream, token_id)

    return lax.fori_loop(0, count, step, (jnp.zeros(BLOCK, jnp.int32), stream))


def _advanced(network: Network, stream: Stream, row: Int32[Array, ""]) -> Stream:
    if stream.window is not None:
        shifted = jnp.concatenate([stream.window[1:], row[None]])
        return _read_window(network, stream._replace(window=shifted))
    logits, carry = network.step(stream.table, row[None], stream.carry)
    return Stream(stream.table, logits[0], carry)


@jax.jit
def _read_window(network: Network, stream: Stream) -> Stream:
    ids = stream.window
    assert ids is not None  # callers have one
    logits, _ = network(ids[:, None], jnp.zeros((len(ids), 1), bool), stream.carry, last_only=True)
    return stream._replace(logits=logits[0, 0])
