"""What each unit of a network puts out while a text is read, to look inside."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int32, Integer

from charloom.kernels import compiled
from charloom.models import Carry, Network

_UNROLL_LENGTH = 64


def unit_outputs(network: Network, token_ids: Integer[np.ndarray, " time"]) -> Float32[np.ndarray, "time units"]:
    """Returns the outputs of all layers' units after each token of a text, the first layer's first."""
    steps = len(token_ids) + 1  # the start input is the first
    rows = np.zeros(-(-steps // _UNROLL_LENGTH) * _UNROLL_LENGTH, np.int32)
    rows[1:steps] = token_ids
    resets = np.zeros(len(rows), bool)
    resets[0] = True
    carry, parts = network.zero_carry(1), []
    for first in range(0, len(rows), _UNROLL_LENGTH):
        piece = slice(first, first + _UNROLL_LENGTH)
        outputs, carry = _outputs(network, rows[piece, None], resets[piece, None], carry)
        parts.append(np.asarray(outputs))
    return np.concatenate(parts)[1:steps]


@compiled
def _outputs(
    network: Network, token_ids: Int32[Array, "unroll 1"], resets: Bool[Array, "unroll 1"], carry: Carry
) -> tuple[Float[Array, "unroll units"], Carry]:
    outputs, carry = network.outputs(token_ids, resets, carry)
    return jnp.concatenate(outputs, axis=-1)[:, 0], carry
