"""Estimates the memory of a training run before it starts."""

import jax

from charloom.cell_facts import CELL_FACTS
from charloom.errors import CharloomError
from charloom.machine import available_memory_bytes
from charloom.models import Network
from charloom.settings import NetworkSettings

_FLOAT = 4
_PROGRAMS = 250_000_000
"""Bytes for JAX to compile a step and an evaluation, and for small blocks of text."""
_COPIES = 12
"""Copies of the weights at an evaluation: the weights and Adam's two moments, the same for the previous good state and
for the new one, the evaluation's, the best, and one that is being saved."""
_COPIES_FOR_CHECKPOINT = 21
"""Copies while a checkpoint is saved: the first two of these states and the best weights, three times."""
_KEPT_PER_LOGIT = 5


def training_bytes(
    settings: NetworkSettings, vocab_size: int, batch_size: int, sequence_length: int, *, checkpoints: bool = False
) -> int:
    """Returns the peak memory of training in bytes, in addition to what the process already uses.

    It is an estimate. Measured peaks were within a quarter of it, on a CPU, for 20,000 to 21 million parameters.

    Args:
        settings: settings of the network.
        vocab_size: size of the vocabulary.
        batch_size: as in `TrainingSettings`.
        sequence_length: as in `TrainingSettings`.
        checkpoints: whether checkpoints are saved.

    >>> training_bytes(NetworkSettings(hidden=16_384), 65, batch_size=64, sequence_length=128) > 40e9
    True
    """
    network = jax.eval_shape(lambda: Network.init(settings, vocab_size, None, None))
    copies = _COPIES_FOR_CHECKPOINT if checkpoints else _COPIES
    units = settings.layers * settings.hidden * CELL_FACTS[settings.cell].kept_floats
    characters = batch_size * sequence_length
    return _PROGRAMS + _FLOAT * (copies * network.parameters + characters * (units + _KEPT_PER_LOGIT * vocab_size))


def require_memory(needed: int) -> None:
    """Makes sure that `needed` bytes of memory are available, if the system reports how many are.

    Raises:
        CharloomError: they are not.
    """
    available = available_memory_bytes() if jax.default_backend() == "cpu" else None
    if available is not None and needed > available:
        raise CharloomError(
            f"training takes about {needed / 1e9:.1f} GB of memory, but {available / 1e9:.1f} GB are available. "
            "Use a smaller --hidden, --layers, --batch-size or --sequence-length, or --force to train anyway."
        )
