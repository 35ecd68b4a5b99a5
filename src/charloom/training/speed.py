"""Estimates how fast this machine trains a network, from a short measurement before training."""

import time

import jax.numpy as jnp
import numpy as np

from charloom.kernels import compiled
from charloom.models import Network
from charloom.settings import NetworkSettings, Precision

REFERENCE_VOCABULARY = 64
"""Vocabulary size of the measured network."""
_READINGS = 15
# Duration of a training step, as a multiple of a forward pass over its characters.
_STEP_COST = 2.9


def training_speed(settings: NetworkSettings, batch_size: int, sequence_length: int, precision: Precision) -> float:
    """Returns an estimate of the characters per second at which such a network trains.

    An untrained network reads a little. That takes a tenth of a second and the compilation of a small program.
    """
    network = Network.init(settings, REFERENCE_VOCABULARY, 0, np.random.default_rng(0)).with_precision(precision)
    return reading_speed(network, batch_size, sequence_length, _READINGS) / _STEP_COST


def reading_speed(network: Network, batch_size: int, time_steps: int, readings: int = 3) -> float:
    """Returns the characters per second that `network` reads in `batch_size` rows: the median of several readings.

    Each reading takes `time_steps` time steps. The first one compiles and is not counted.
    """
    shape = time_steps, batch_size
    token_ids = jnp.asarray(np.random.default_rng(0).integers(0, network.vocab_size, shape, np.int32))
    resets = jnp.asarray(np.zeros(shape, bool))
    carry = network.zero_carry(batch_size)
    read = compiled(lambda network: network(token_ids, resets, carry)[0].sum())
    seconds = []
    for _ in range(readings):
        begin = time.perf_counter()
        read(network).block_until_ready()
        seconds.append(time.perf_counter() - begin)
    return batch_size * time_steps / float(np.median(seconds[1:]))
