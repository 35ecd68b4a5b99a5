"""The state of a text in generation: the prompt primes it once, then each character is fed back.

XLA rounds a row of a matrix product differently in batches of different sizes, and a text must not depend on the
other texts in its batch. So the compiled program generates one text at a time.
The native product does not depend on the batch, so the native program generates many texts at a time.
See docs/design/generation.md.
"""

import weakref
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int32, Integer, UInt32

from charloom.errors import SettingError
from charloom.inference.exact_table import exact_projection_table
from charloom.inference.sampling import SamplingRule, choose, uniforms
from charloom.kernels import Activations, Generator, GeneratorState, LayerWeights, compiled, has_native_kernel
from charloom.models import CELLS, Carry, CellWithRecurrentKernel, Dense, GRUCell, LogitsHead, Network
from charloom.settings import WeightsPrecision

BLOCK_SIZE = 64
"""Characters per call of a compiled program."""
# A native call wakes threads. For a small network, that takes about as long as reading 64 characters.
_NATIVE_BLOCK = 256


class DecoderState(NamedTuple):
    """The state of one text in generation, between two characters.

    Attributes:
        table: the network's projection table, computed once.
        logits: logits of the next token.
        carry: the recurrent state, with a batch of one; always zero with a window.
        window: the last tokens, which are read again for each new one; None if the state is carried.
    """

    table: Float[Array, "rows gates"]
    logits: Float[Array, " vocab"]
    carry: Carry
    window: Int32[Array, " window"] | None = None


class NativeDecoderState(NamedTuple):
    """The state of one text in native generation, between two characters.

    Attributes:
        generator: the network, packed for the native kernels.
        streams: the arrays of a single stream; they are copied before they are changed.
    """

    generator: Generator
    streams: GeneratorState


def read_prompt(
    network: Network,
    prompt: Integer[np.ndarray, " time"],
    window: int | None = None,
    weights: WeightsPrecision = "float32",
) -> DecoderState | NativeDecoderState:
    """Returns the state after the start input and `prompt`, which may be empty.

    With a window, the network reads only the last `window` tokens of the prompt, and does so again for each new token.

    Raises:
        SettingError: native kernels cannot have these `weights` for this network.
    """
    if window is not None:
        if weights != "float32":
            raise SettingError("weights", f'must be "float32" for a model that reads windows; got {weights!r}')
        ids = jnp.asarray(prompt[-window:], jnp.int32)
        return _read_window(
            network,
            DecoderState(_table(network), jnp.zeros(network.vocab_size, jnp.float32), network.zero_carry(1), ids),
        )
    state: DecoderState | NativeDecoderState
    if (generator := _packed(network, weights)) is not None:
        state = NativeDecoderState(generator, generator.begin(1))
    else:
        state = DecoderState(_table(network), jnp.zeros(network.vocab_size, jnp.float32), network.zero_carry(1))
    return read_tokens(network, state, np.concatenate([[network.start_row], prompt]))


def read_tokens(
    network: Network, state: DecoderState | NativeDecoderState, rows: Integer[np.ndarray, " time"]
) -> DecoderState | NativeDecoderState:
    """Returns the state after reading `rows` in `state`, which does not change."""
    rows = rows.astype(np.int32)
    if isinstance(state, NativeDecoderState):
        streams = GeneratorState(*(array.copy() for array in state.streams))
        for first in range(0, len(rows), _NATIVE_BLOCK):  # Ctrl-C is handled between blocks
            state.generator.run(streams, np.ascontiguousarray(rows[None, first : first + _NATIVE_BLOCK]))
        return NativeDecoderState(state.generator, streams)
    for first in range(0, len(rows), BLOCK_SIZE):
        piece = rows[first : first + BLOCK_SIZE]
        state = _read(network, state, np.resize(piece, BLOCK_SIZE), len(piece))
    return state


def generate_block(
    network: Network,
    state: DecoderState,
    rule: SamplingRule,
    seed_words: UInt32[np.ndarray, "2"],
    stream_index: int,
    position: int,
    length: int,
) -> tuple[Int32[np.ndarray, " block"], DecoderState]:
    """Returns the next tokens of one text on the reference path, at most a block, and the state after them."""
    count = min(BLOCK_SIZE, length)
    token_ids, state = _generate(network, state, rule, seed_words, np.uint32(stream_index), np.uint32(position), count)
    return np.asarray(token_ids)[:count], state


# Packed networks by the ids of their networks, as long as these exist. Packing takes longer than many a text.
_generators: dict[tuple[int, WeightsPrecision], Generator] = {}


def _packed(network: Network, weights: WeightsPrecision) -> Generator | None:
    """Returns the network packed for generation, cached; None if the native kernels do not support it.

    Raises:
        SettingError: they do not support it, and `weights` are not float32, which the reference has.
    """
    if (cells := _native_cells(network)) is None:
        if weights == "float32":
            return None
        raise SettingError("weights", f'must be "float32" where no native kernels generate; got {weights!r}')
    if weights == "int8" and any(cell.cell_activation != "tanh" for cell in cells):
        raise SettingError("weights", 'can be "int8" only if all cell activations are tanh')
    key = id(network), weights
    if (known := _generators.get(key)) is not None:
        return known
    generator = _generators[key] = _generator(network, cells, weights)
    weakref.finalize(network, _generators.pop, key, None)
    return generator


def _native_cells(network: Network) -> list[CellWithRecurrentKernel] | None:
    """Returns the network's cells; None if the native kernels do not support the network."""
    name = network.cells[0].facts.name
    native = [
        cell
        for cell in network.cells
        if isinstance(cell, CellWithRecurrentKernel)
        and type(cell) is CELLS[name]  # a subclass may compute something else
        and has_native_kernel(name, cell.recurrent_kernel, cell.cell_activation)
    ]
    return native if len(native) == len(network.cells) and isinstance(network.head, Dense | LogitsHead) else None


def _generator(network: Network, cells: Sequence[CellWithRecurrentKernel], weights: WeightsPrecision) -> Generator:
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
        for cell in cells
    ]
    table = exact_projection_table(network) if weights == "int8" else np.asarray(_table(network))
    return Generator(cells[0].facts.name, table, layers, head, weights)


@compiled
def _table(network: Network) -> Float[Array, "rows gates"]:
    return network.projection_table()


@compiled
def _read(network: Network, state: DecoderState, rows: Int32[Array, " block"], count: Int32[Array, ""]) -> DecoderState:
    def step(index: Int32[Array, ""], state: DecoderState) -> DecoderState:
        return _advanced(network, state, rows[index])

    return lax.fori_loop(0, count, step, state)


@compiled
def _generate(
    network: Network,
    state: DecoderState,
    rule: SamplingRule,
    seed: UInt32[Array, "2"],
    stream_index: UInt32[Array, ""],
    position: UInt32[Array, ""],
    count: Int32[Array, ""],
) -> tuple[Int32[Array, " block"], DecoderState]:
    draws = uniforms(seed, stream_index, position + jnp.arange(BLOCK_SIZE, dtype=jnp.uint32))

    def step(
        index: Int32[Array, ""], progress: tuple[Int32[Array, " block"], DecoderState]
    ) -> tuple[Int32[Array, " block"], DecoderState]:
        token_ids, state = progress
        token_id = choose(state.logits, draws[index], rule)
        return token_ids.at[index].set(token_id), _advanced(network, state, token_id)

    return lax.fori_loop(0, count, step, (jnp.zeros(BLOCK_SIZE, jnp.int32), state))


def _advanced(network: Network, state: DecoderState, row: Int32[Array, ""]) -> DecoderState:
    if state.window is not None:
        shifted = jnp.concatenate([state.window[1:], row[None]])
        return _window_read(network, state._replace(window=shifted))
    logits, carry = network.step(state.table, row[None], state.carry)
    return DecoderState(state.table, logits[0], carry)


def _window_read(network: Network, state: DecoderState) -> DecoderState:
    ids = state.window
    assert ids is not None  # callers have checked it
    logits, _ = network(ids[:, None], jnp.zeros((len(ids), 1), bool), state.carry, last_only=True)
    return state._replace(logits=logits[0, 0])


_read_window = compiled(_window_read)
