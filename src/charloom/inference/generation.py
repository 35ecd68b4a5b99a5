"""Generation: the prompt primes the state once, then each character is fed back, in one native or compiled loop.

Every stream runs through the same compiled program on its own: XLA's matrix product rounds a row differently in
company, and a stream's text must not depend on who else is written. The native product does not, and writes many
streams at a time. See docs/design/generation.md.
"""

import weakref
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int32, Integer, Shaped, UInt32

from charloom.inference.sampling import SamplingRule, choose, native_writers, seed_words, uniforms
from charloom.kernels import Activations, Generator, GeneratorState, LayerWeights, compiled, has_native_kernel
from charloom.models import CELLS, Carry, Dense, GRUCell, LogitsHead, Network
from charloom.settings import CellName, SamplingSettings

BLOCK = 64
"""Characters a call: few enough to stream smoothly, enough that calls cost nothing."""
_NATIVE_BLOCK = 256  # a native call wakes threads, which 64 characters of a small network hardly pay for
_FIRST_NATIVE_BLOCK = 16  # doubled each time: the first come at once, little is written past a short record


class DecoderState(NamedTuple):
    """A text being written, between two characters.

    Attributes:
        table: the network's projection table, made once.
        logits: of the next token.
        carry: the state to go on from, of one row; always zero for a window.
        window: the tokens that are read again for each one that is written; None for a state that is carried on.
    """

    table: Float[Array, "rows gates"]
    logits: Float[Array, " vocab"]
    carry: Carry
    window: Int32[Array, " window"] | None = None


class NativeDecoderState(NamedTuple):
    """A text being written natively, between two characters.

    Attributes:
        generator: the network, packed.
        state: of the one stream; copied before it is gone on from.
    """

    generator: Generator
    state: GeneratorState


def read_prompt(
    network: Network, prompt: Integer[np.ndarray, " time"], window: int | None = None
) -> DecoderState | NativeDecoderState:
    """Returns the stream that has read the start input and then `prompt`, which may be empty.

    With a window it has read the last `window` tokens of the prompt alone, and will do so for each token after it.
    """
    if window is not None:
        ids = jnp.asarray(prompt[-window:], jnp.int32)
        return _read_window(
            network,
            DecoderState(_table(network), jnp.zeros(network.vocab_size, jnp.float32), network.zero_carry(1), ids),
        )
    stream: DecoderState | NativeDecoderState
    if (generator := _packed(network)) is not None:
        stream = NativeDecoderState(generator, generator.begin(1))
    else:
        stream = DecoderState(_table(network), jnp.zeros(network.vocab_size, jnp.float32), network.zero_carry(1))
    return read_on(network, stream, np.concatenate([[network.start_row], prompt]))


def read_on(
    network: Network, stream: DecoderState | NativeDecoderState, rows: Integer[np.ndarray, " time"]
) -> DecoderState | NativeDecoderState:
    """Returns the stream that has read `rows` after what `stream` has; that one stays as it is."""
    rows = rows.astype(np.int32)
    if isinstance(stream, NativeDecoderState):
        state = GeneratorState(*(array.copy() for array in stream.state))
        for first in range(0, len(rows), _NATIVE_BLOCK):  # between blocks Ctrl-C is heard
            stream.generator.run(state, np.ascontiguousarray(rows[None, first : first + _NATIVE_BLOCK]))
        return NativeDecoderState(stream.generator, state)
    for first in range(0, len(rows), BLOCK):
        piece = rows[first : first + BLOCK]
        stream = _read(network, stream, np.resize(piece, BLOCK), len(piece))
    return stream


def write(
    network: Network,
    stream: DecoderState | NativeDecoderState,
    length: int,
    settings: SamplingSettings,
    seed: int,
    stream_indexes: Sequence[int],
) -> Iterator[Int32[np.ndarray, "streams block"]]:
    """Yields the next `length` token ids of texts that go on from `stream`, side by side, in blocks as they come.

    Args:
        network: what `stream` was read with.
        stream: where the texts go on; it stays as it is.
        length: how many tokens.
        settings: how they are chosen.
        seed: with a text's index and the position, all that its random numbers depend on.
        stream_indexes: which of the texts that are written with this seed they are. Each is what it would be alone.
    """
    if isinstance(stream, NativeDecoderState):
        yield from _write_natively(stream, length, native_writers(settings, seed, stream_indexes))
        return
    rule = SamplingRule.of(settings)
    words = seed_words(seed)
    streams = [stream] * len(stream_indexes)
    for position in range(0, length, BLOCK):
        blocks = []
        for place, index in enumerate(stream_indexes):
            token_ids, streams[place] = write_block(
                network, streams[place], rule, words, index, position, length - position
            )
            blocks.append(token_ids)
        yield np.stack(blocks)


def write_block(
    network: Network,
    stream: DecoderState,
    rule: SamplingRule,
    seed_words: UInt32[np.ndarray, "2"],
    stream_index: int,
    position: int,
    length: int,
) -> tuple[Int32[np.ndarray, " block"], DecoderState]:
    """Returns the next tokens of one text on the reference, up to `length` or a block of them, and where it goes on."""
    count = min(BLOCK, length)
    token_ids, stream = _write(network, stream, rule, seed_words, np.uint32(stream_index), np.uint32(position), count)
    return np.asarray(token_ids)[:count], stream


def _write_natively(
    stream: NativeDecoderState, length: int, writers: Shaped[np.ndarray, " streams"]
) -> Iterator[Int32[np.ndarray, "streams block"]]:
    hidden, cells, logits = stream.state
    count = len(writers)
    state = GeneratorState(
        np.repeat(hidden, count, axis=1), np.repeat(cells, count, axis=1), np.repeat(logits, count, axis=0)
    )
    position, block = 0, _FIRST_NATIVE_BLOCK
    while position < length:
        tokens = np.full((count, min(block, length - position)), -1, np.int32)
        stream.generator.run(state, tokens, writers)
        yield tokens
        position, block = position + tokens.shape[1], min(2 * block, _NATIVE_BLOCK)
        writers["position"] = position


# Packed networks by their ids, for as long as they are there: packing takes longer than many a text.
_generators: dict[int, Generator] = {}


def _packed(network: Network) -> Generator | None:
    """Returns the network, packed for writing, once; None where the native kernels do not take it."""
    if not _is_native(network):
        return None
    if (known := _generators.get(id(network))) is not None:
        return known
    generator = _generators[id(network)] = _generator(network)
    weakref.finalize(network, _generators.pop, id(network), None)
    return generator


def _is_native(network: Network) -> bool:
    cells = network.cells
    return (
        _native_cell(network) is not None
        and isinstance(network.head, Dense | LogitsHead)
        and all(type(cell) is type(cells[0]) for cell in cells)
        and all(has_native_kernel(cell.recurrent_kernel, cell.cell_activation) for cell in cells)
    )


def _native_cell(network: Network) -> CellName | None:
    """Returns the native kernels' name for the network's cells; None for cells that they do not have."""
    return next((name for name in Generator.CELLS if type(network.cells[0]) is CELLS[name]), None)


def _generator(network: Network) -> Generator:
    name = _native_cell(network)
    assert name is not None  # it is native
    head: tuple[np.ndarray, np.ndarray] | None = None
    if isinstance(network.head, Dense):
        head = np.asarray(network.head.kernel), np.asarray(network.head.bias)
    layers = [
        LayerWeights(
            np.asarray(cell.kernel),
            np.asarray(cell.bias),
            np.asarray(cell.recurrent_kernel),
            np.asarray(cell.recurrent_bias) if isinstance(cell, GRUCell) else None,
            Activations(cell.gate_activation, cell.cell_activation),
        )
        for cell in network.cells
    ]
    return Generator(name, np.asarray(_table(network)), layers, head)


@compiled
def _table(network: Network) -> Float[Array, "rows gates"]:
    return network.projection_table()


@compiled
def _read(
    network: Network, stream: DecoderState, rows: Int32[Array, " block"], count: Int32[Array, ""]
) -> DecoderState:
    def step(index: Int32[Array, ""], stream: DecoderState) -> DecoderState:
        return _advanced(network, stream, rows[index])

    return lax.fori_loop(0, count, step, stream)


@compiled
def _write(
    network: Network,
    stream: DecoderState,
    rule: SamplingRule,
    seed: UInt32[Array, "2"],
    stream_index: UInt32[Array, ""],
    position: UInt32[Array, ""],
    count: Int32[Array, ""],
) -> tuple[Int32[Array, " block"], DecoderState]:
    draws = uniforms(seed, stream_index, position + jnp.arange(BLOCK, dtype=jnp.uint32))

    def step(
        index: Int32[Array, ""], state: tuple[Int32[Array, " block"], DecoderState]
    ) -> tuple[Int32[Array, " block"], DecoderState]:
        token_ids, stream = state
        token_id = choose(stream.logits, draws[index], rule)
        return token_ids.at[index].set(token_id), _advanced(network, stream, token_id)

    return lax.fori_loop(0, count, step, (jnp.zeros(BLOCK, jnp.int32), stream))


def _advanced(network: Network, stream: DecoderState, row: Int32[Array, ""]) -> DecoderState:
    if stream.window is not None:
        shifted = jnp.concatenate([stream.window[1:], row[None]])
        return _window_read(network, stream._replace(window=shifted))
    logits, carry = network.step(stream.table, row[None], stream.carry)
    return DecoderState(stream.table, logits[0], carry)


def _window_read(network: Network, stream: DecoderState) -> DecoderState:
    ids = stream.window
    assert ids is not None  # callers have one
    logits, _ = network(ids[:, None], jnp.zeros((len(ids), 1), bool), stream.carry, last_only=True)
    return stream._replace(logits=logits[0, 0])


_read_window = compiled(_window_read)
