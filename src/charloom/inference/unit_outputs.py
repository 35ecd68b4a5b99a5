"""The outputs of a network's units while it reads a text, for inspection."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int32, Integer

from charloom.kernels import compiled
from charloom.models import Carry, Network

_SEQUENCE_LENGTH = 64


def unit_outputs(
    network: Network,
    token_ids: Integer[np.ndarray, " time"],
    *,
    from_start: bool = True,
    record_end: int | None = None,
) -> Float32[np.ndarray, "time units"]:
    """Returns the outputs of all units after each token of a text, the first layer first.

    Args:
        network: the network.
        token_ids: the text.
            from_start: whether the network reads its start input before the text.
            record_end: the token after which a new text begins.
    """
    begin = int(from_start)
    steps = len(token_ids) + begin
    rows = np.zeros(-(-steps // _SEQUENCE_LENGTH) * _SEQUENCE_LENGTH, np.int32)
    rows[begin:steps] = token_ids
    resets = np.zeros(len(rows), bool)
    resets[0] = from_start
    if record_end is not None:  # the token is also the start input of the next record
        resets[begin:steps] |= token_ids == record_end
    carry, parts = network.zero_carry(1), []
    for first in range(0, len(rows), _SEQUENCE_LENGTH):
        piece = slice(first, first + _SEQUENCE_LENGTH)
        outputs, carry = _outputs(network, rows[piece, None], resets[piece, None], carry)
        parts.append(np.asarray(outputs))
    return np.concatenate(parts)[begin:steps]


@compiled
def _outputs(
    network: Network, token_ids: Int32[Array, "sequence 1"], resets: Bool[Array, "sequence 1"], carry: Carry
) -> tuple[Float[Array, "sequence units"], Carry]:
    outputs, carry = network.outputs(token_ids, resets, carry)
    return jnp.concatenate(outputs, axis=-1)[:, 0], carry
