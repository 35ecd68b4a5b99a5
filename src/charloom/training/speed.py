"""How fast this machine trains, before anything is trained: from a moment of reading."""

import time

import jax.numpy as jnp
import numpy as np

from charloom.kernels import compiled
from charloom.models import Network
from charloom.settings import NetworkSettings

REFERENCE_VOCABULARY = 64
"""Characters of the network that reads."""
_READINGS = 15
# What an update takes, as a multiple of what reading its characters takes.
_UPDATE_COST = 2.9


def training_speed(settings: NetworkSettings, lanes: int, unroll_length: int) -> float:
    """Returns the characters a second that training such a network on such lanes would read; about, and soon.

    A network that has learnt nothing reads a little; it takes a tenth of a second and a small program's compilation.
    """
    network = Network.init(settings, REFERENCE_VOCABULARY, 0, np.random.default_rng(0))
    return reading_speed(network, lanes, unroll_length, _READINGS) / _UPDATE_COST


def reading_speed(network: Network, lanes: int, steps: int, readings: int = 3) -> float:
    """Returns the characters per second that `network` reads in `lanes` lanes, the median of some readings.

    Each reads so many `steps`; the first compiles and is not counted.
    """
    shape = steps, lanes
    token_ids = jnp.asarray(np.random.default_rng(0).integers(0, network.vocab_size, shape, np.int32))
    resets = jnp.asarray(np.zeros(shape, bool))
    carry = network.zero_carry(lanes)
    read = compiled(lambda network: network(token_ids, resets, carry)[0].sum())
    seconds = []
    for _ in range(readings):
        begin = time.perf_counter()
        read(network).block_until_ready()
        seconds.append(time.perf_counter() - begin)
    return lanes * steps / float(np.median(seconds[1:]))
