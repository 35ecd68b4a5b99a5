"""The recipe: picks the network and the hyperparameters for a text and a time budget; see docs/design/recipe.md."""

import itertools
import math
from collections.abc import Set
from dataclasses import dataclass, replace

from charloom.cell_facts import CELL_FACTS
from charloom.settings import NetworkSettings, TrainingSettings
from charloom.training import REFERENCE_VOCABULARY
from charloom.units import significant

_WIDTHS = (64, 96, 128, 192, 256, 320, 384, 512, 640, 768, 896, 1024, 1280, 1536, 2048)
# Characters to read per weight, by the number of passes: repeated text teaches less, and a larger network learns more.
_CHARACTERS_PER_WEIGHT_BY_PASSES = ((2.0, 32.0), (6.0, 8.0))
# A larger network than this memorizes the text.
_MAX_WEIGHTS_PER_CHARACTER = 2.5
_DROPOUT_BY_PASSES = ((1.0, 0.0), (3.0, 0.1), (6.0, 0.2), (12.0, 0.3), (30.0, 0.4), (100.0, 0.5))
_WEIGHT_DROPOUT_BY_PASSES = ((10.0, 0.0), (20.0, 0.15), (60.0, 0.35))
# Weight dropout takes a tenth of the time, whatever its rate, so a lower rate is not worth it.
_MIN_WEIGHT_DROPOUT = 0.05
# The learning rate of layers up to this width. For wider layers it is lower, in proportion.
_LEARNING_RATE, _LEARNING_RATE_WIDTH = 0.01, 384
_WEIGHT_DECAY = 0.05
PICKED = frozenset({"hidden", "dropout", "learning_rate", "weight_dropout", "weight_decay"})
"""Names of the settings that the recipe picks."""
# Scoring a character is this many times as fast as training on it.
_SCORING_SPEED = 3.0
_MIN_TRAINING_FRACTION = 0.1
_MIN_SECONDS, _MAX_SECONDS = 20.0, 600.0
_SECONDS_PER_MEGABYTE = 100.0


@dataclass(frozen=True)
class Choice:
    """What the recipe picked.

    Attributes:
        network: the shape of the network.
        training: the training settings.
        chars_per_second: the expected training speed.
        what: a line that says what was picked.
        why: a line that says why.
    """

    network: NetworkSettings
    training: TrainingSettings
    chars_per_second: float
    what: str
    why: str


def default_budget(characters: int) -> float:
    """Returns the default budget, in seconds, for a text of this many characters.

    >>> default_budget(1_000_000), default_budget(10_000), default_budget(1_000_000_000)
    (100.0, 20.0, 600.0)
    """
    seconds = _SECONDS_PER_MEGABYTE * (characters / 1e6) ** 0.5
    return float(round(min(max(seconds, _MIN_SECONDS), _MAX_SECONDS), -1))


def reference(network: NetworkSettings) -> NetworkSettings:
    """Returns the network that measures a machine's speed: one layer of 256 units of the same cell."""
    return NetworkSettings(cell=network.cell)


def pick(
    network: NetworkSettings,
    training: TrainingSettings,
    given: Set[str],
    characters: int,
    vocab_size: int,
    seconds: float,
    reference_speed: float,
    closing_characters: int = 0,
) -> Choice:
    """Returns the network and hyperparameters to train in the given time.

    Args:
        network: the network settings; those that were not given are picked.
        training: the training settings; those that were not given are picked.
        given: names of the settings that were given.
        characters: length of the training part.
        vocab_size: size of the vocabulary.
        seconds: time for training and for the scoring after it.
        reference_speed: training speed of `reference` on this machine, in characters per second.
        closing_characters: how many characters are scored after training.
    """
    rate = reference_speed * _weights(reference(network), REFERENCE_VOCABULARY)  # weights times characters per second
    if "hidden" not in given:
        sizes = [replace(network, hidden=units) for units in _WIDTHS]
        max_weights = _MAX_WEIGHTS_PER_CHARACTER * characters
        sizes = [size for size in sizes if _weights(size, vocab_size) <= max_weights] or sizes[:1]

        def distance(size: NetworkSettings) -> float:
            weights = _weights(size, vocab_size)
            read = _training_seconds(seconds, rate / weights, closing_characters) * rate / weights
            return abs(math.log(read / weights / _interpolated(_CHARACTERS_PER_WEIGHT_BY_PASSES, read / characters)))

        network = min(sizes, key=distance)
    speed = rate / _weights(network, vocab_size)
    seconds = _training_seconds(seconds, speed, closing_characters)
    passes = seconds * speed / characters
    weight_dropout = round(_interpolated(_WEIGHT_DROPOUT_BY_PASSES, passes), 2)
    if weight_dropout < _MIN_WEIGHT_DROPOUT or not CELL_FACTS[network.cell].has_recurrent_kernel:
        weight_dropout = 0.0
    picked = TrainingSettings(
        dropout=round(_interpolated(_DROPOUT_BY_PASSES, passes), 2),
        learning_rate=round(_LEARNING_RATE * min(1.0, _LEARNING_RATE_WIDTH / network.hidden), 4),
        weight_dropout=weight_dropout,
        weight_decay=_WEIGHT_DECAY,
    )
    training = replace(training, **{name: getattr(picked, name) for name in PICKED - {"hidden"} - given})
    what = (
        f"{CELL_FACTS[network.cell].label}, {network.layers} × {network.hidden} units, "
        f"embedding {network.embedding}, "
        f"{training.batch_size} rows × {training.sequence_length}, dropout {training.dropout:g}, "
        f"weight dropout {training.weight_dropout:g}, learning rate {training.learning_rate:g}, "
        f"weight decay {training.weight_decay:g}, {training.precision}"
    )
    why = (
        f"at about {_rounded(speed):,} characters per second, {seconds:.0f} s of training are "
        f"{significant(passes, 3)} passes over {characters:,} characters"
    )
    return Choice(network, training, speed, what, why)


def _training_seconds(seconds: float, speed: float, closing_characters: int) -> float:
    """Returns the part of `seconds` that is left for training at `speed`. It is never zero, even in a short budget."""
    return max(_MIN_TRAINING_FRACTION * seconds, seconds - closing_characters / (_SCORING_SPEED * speed))


def _weights(network: NetworkSettings, vocab_size: int) -> int:
    """Returns the cost of a character: the number of weights it is multiplied with, all except the embedding's."""
    return CELL_FACTS[network.cell].cost(network.hidden, network.layers) + network.hidden * vocab_size


def _interpolated(points: tuple[tuple[float, float], ...], x: float) -> float:
    """Returns the value at `x`, by linear interpolation between `points` over the logarithm of `x`."""
    for (x_before, low), (x_after, high) in itertools.pairwise(points):
        if x < x_after:
            fraction = max(0.0, math.log(x / x_before) / math.log(x_after / x_before))
            return low + fraction * (high - low)
    return points[-1][1]


def _rounded(number: float) -> int:
    digits = max(0, math.floor(math.log10(max(number, 1))) - 1)
    return round(number / 10**digits) * 10**digits
