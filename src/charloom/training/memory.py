"""How much memory a training run takes, before anything of it is there."""

import jax

from charloom.errors import CharloomError
from charloom.machine import available_memory_bytes
from charloom.models import Network
from charloom.settings import NetworkSettings

_FLOAT = 4
_PROGRAMS = 250_000_000
"""Bytes that JAX takes to compile a step and an evaluation, and for small blocks of text."""
_COPIES = 12
"""Copies of the weights at an evaluation: weights and Adam's two means, the same to go back to and its successor, the
evaluation's and the best weights, and one that is written."""
_COPIES_FOR_CHECKPOINT = 21
"""Copies while a checkpoint is written: the first two of these states and the best weights, three times."""
# Floats that a step keeps for each character, layer and unit: activations, their gradients, what a cell carries.
_KEPT_PER_UNIT = {"lstm": 8, "gru": 7, "elman": 4}
_KEPT_PER_LOGIT = 5


def training_bytes(
    settings: NetworkSettings, vocab_size: int, batch_size: int, sequence_length: int, *, checkpoints: bool = False
) -> int:
    """Returns the bytes that training takes at its peak, beside what the process has already.

    An estimate: measured peaks were within a quarter of it, on a CPU, for networks of 20,000 to 21 million parameters.

    Args:
        settings: of the network.
        vocab_size: characters of its vocabulary.
        batch_size: as of `TrainingSettings`.
        sequence_length: as of `TrainingSettings`.
        checkpoints: whether any are written.

    >>> training_bytes(NetworkSettings(hidden=16_384), 65, batch_size=64, sequence_length=128) > 40e9
    True
    """
    network = jax.eval_shape(lambda: Network.init(settings, vocab_size, None, None))
    copies = _COPIES_FOR_CHECKPOINT if checkpoints else _COPIES
    units = settings.layers * settings.hidden * _KEPT_PER_UNIT[settings.cell]
    characters = batch_size * sequence_length
    return _PROGRAMS + _FLOAT * (copies * network.parameters + characters * (units + _KEPT_PER_LOGIT * vocab_size))


def require_memory(needed: int) -> None:
    """Makes sure that there are `needed` bytes of memory, where the system tells how many there are.

    Raises:
        CharloomError: there are not.
    """
    available = available_memory_bytes() if jax.default_backend() == "cpu" else None
    if available is not None and needed > available:
        raise CharloomError(
            f"training takes about {needed / 1e9:.1f} GB of memory, and {available / 1e9:.1f} GB are available. Use a "
            "smaller --hidden, --layers, --batch-size or --sequence-length, or --force to train all the same."
        )
