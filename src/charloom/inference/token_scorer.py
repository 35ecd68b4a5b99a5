"""Scores token ids in blocks, with one compiled program for all lengths.

A line of a new length therefore never waits for a compilation.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Float32, Int32, Integer, Shaped

from charloom.data import Block
from charloom.inference.scores import TopPredictions
from charloom.kernels import compiled
from charloom.models import Carry, Network, cross_entropy

BATCH_SIZE = 64
"""Number of rows when many texts are scored in parallel."""
BATCH_STEP_COST = 12
"""Duration of a step of `BATCH_SIZE` rows, as a multiple of a step of one row."""
_SEQUENCE_LENGTH = 64
# A single row needs longer blocks, because it does not share the overhead of a call with other rows.
CAPACITIES = {1: 64, BATCH_SIZE: 8}
"""Sequences per block, by batch size."""
# Work of a call that must be short: parameters times steps of one row. It takes a few milliseconds on two cores.
_SHORT_WORK = 1 << 25
_MIN_SEQUENCE_LENGTH = 2


class BlockShape(NamedTuple):
    """The shape of the blocks that one call reads."""

    batch_size: int
    capacity: int
    sequence_length: int

    @classmethod
    def for_network(cls, batch_size: int, parameters: int, *, is_short: bool) -> "BlockShape":
        """Returns the fastest shape for a network of that many parameters.

        With `is_short`, one call takes only a few milliseconds.
        """
        if not is_short:
            return cls(batch_size, CAPACITIES[batch_size], _SEQUENCE_LENGTH)
        time_steps = _SHORT_WORK // (parameters * (1 if batch_size == 1 else BATCH_STEP_COST))
        sequence_length = max(_MIN_SEQUENCE_LENGTH, min(_SEQUENCE_LENGTH, 1 << max(0, time_steps.bit_length() - 1)))
        return cls(batch_size, max(1, min(CAPACITIES[batch_size], time_steps // sequence_length)), sequence_length)


class TokenScorer:
    """Scores one text piece by piece, with the recurrent state carried from piece to piece.

    Sequences begin at the same characters however the text is split, so the scores are the same to the last bit.
    Tokens after the last complete sequence are read again with the next piece.

    Args:
        network: the network that predicts.
        top_predictions: number of most likely tokens to return per position.
        check: called before each call, and may raise to stop the scoring. Calls are then short.
    """

    def __init__(self, network: Network, top_predictions: int = 0, check: Callable[[], None] | None = None) -> None:
        self._network = network
        self._top_predictions = top_predictions
        self._check = check or (lambda: None)
        self._shape = BlockShape.for_network(1, network.parameters, is_short=check is not None)
        self._carry = network.zero_carry(1)
        # The first entry is a placeholder: the network reads its start input there.
        self._entries: Integer[np.ndarray, " time"] = np.zeros(1, np.int32)
        self._has_started = False

    def score(self, token_ids: Integer[np.ndarray, " time"]) -> tuple[Float32[np.ndarray, " time"], TopPredictions]:
        """Returns the nats of the text's next tokens, and the top predictions at their positions."""
        if not len(token_ids):
            return np.zeros(0, np.float32), TopPredictions(
                *(np.zeros((0, self._top_predictions), kind) for kind in ("i4", "f4"))
            )
        scored_before = len(self._entries) - 1
        self._entries = np.concatenate([self._entries, token_ids])
        parts = []
        _, capacity, sequence_length = self._shape
        while (time_steps := len(self._entries) - 1) > 0:
            self._check()
            time_steps = min(time_steps, capacity * sequence_length)
            complete = time_steps // sequence_length
            block = self._block(time_steps)
            scored, self._carry = score_block(
                self._network,
                block.token_ids,
                block.resets,
                block.steps,
                complete,
                self._carry,
                top_predictions=self._top_predictions,
            )
            parts.append([_flat_time(array)[:time_steps] for array in scored])
            self._entries = self._entries[complete * sequence_length :]
            self._has_started |= complete > 0
            if complete < capacity:
                break
        nats, ids, log_probs = (np.concatenate(arrays)[scored_before:] for arrays in zip(*parts, strict=True))
        return nats, TopPredictions(ids, log_probs)

    def _block(self, time_steps: int) -> Block:
        _, capacity, sequence_length = self._shape
        steps = -(-time_steps // sequence_length)
        missing = steps * sequence_length - time_steps
        block = Block.empty(capacity, 1, sequence_length, steps)
        resets = np.zeros(time_steps + missing, bool)
        resets[0] = not self._has_started
        block.fill_row(0, np.pad(self._entries[: time_steps + 1], (0, missing)), resets)
        return block


def _flat_time(array: Shaped[Array, "capacity sequence 1 *_"]) -> Shaped[np.ndarray, "..."]:
    """Returns the array of a single row with capacity and sequence joined into one time axis."""
    capacity, sequence_length, _, *rest = array.shape
    return np.asarray(array).reshape(capacity * sequence_length, *rest)


@partial(compiled, static_argnames="top_predictions")
def score_block(
    network: Network,
    token_ids: Int32[Array, "capacity batch sequence_plus_1"],
    resets: Bool[Array, "capacity batch sequence"],
    steps: Int32[Array, ""],
    complete: Int32[Array, ""],
    carry: Carry,
    *,
    top_predictions: int,
) -> tuple[
    tuple[
        Float[Array, "capacity sequence batch"],
        Int32[Array, "capacity sequence batch top_predictions"],
        Float[Array, "capacity sequence batch top_predictions"],
    ],
    Carry,
]:
    """Returns the nats of each token, the top predictions, and the carry after the first `complete` sequences."""

    def sequence(index: Int32[Array, ""], state: tuple[tuple[Array, ...], Carry]) -> tuple[tuple[Array, ...], Carry]:
        results, carry = state
        ids = token_ids[index].T
        logits, after = network(ids[:-1], resets[index].T, carry)
        of_sequence = cross_entropy(logits, ids[1:]), *_top_k(logits, top_predictions)
        results = jax.tree.map(lambda all_, one: all_.at[index].set(one), results, of_sequence)
        return results, jax.tree.map(lambda new, old: jnp.where(index < complete, new, old), after, carry)

    capacity, batch_size, sequence_length = resets.shape
    shape = capacity, sequence_length, batch_size
    zeros = (
        jnp.zeros(shape, jnp.float32),
        jnp.zeros((*shape, top_predictions), jnp.int32),
        jnp.zeros((*shape, top_predictions), jnp.float32),
    )
    return lax.fori_loop(0, steps, sequence, (zeros, carry))


def _top_k(
    logits: Float[Array, "sequence batch vocab"], top_predictions: int
) -> tuple[Int32[Array, "sequence batch top_predictions"], Float[Array, "sequence batch top_predictions"]]:
    if top_predictions == 0:
        shape = (*logits.shape[:2], 0)
        return jnp.zeros(shape, jnp.int32), jnp.zeros(shape, jnp.float32)
    log_probs, ids = lax.top_k(jax.nn.log_softmax(logits), top_predictions)
    return ids, log_probs
