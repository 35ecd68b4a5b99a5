"""The recipe: which network, and how trained, makes the most of a text in a time; see docs/design/recipe.md."""

import itertools
import math
from collections.abc import Set
from dataclasses import dataclass, replace

from charloom.models import CELLS
from charloom.settings import NetworkSettings, TrainingSettings
from charloom.training import REFERENCE_VOCABULARY
from charloom.units import significant

_WIDTHS = (64, 96, 128, 192, 256, 320, 384, 512, 640, 768, 896, 1024, 1280, 1536, 2048)
# Characters to be read for each weight, by how often the text is: what is read again teaches less, and a larger network
# more.
_CHARACTERS_A_WEIGHT_AT_PASSES = ((2.0, 32.0), (6.0, 8.0))
# A larger network than this learns a text by heart.
_MOST_WEIGHTS_A_CHARACTER = 2.5
_DROPOUT_AT_PASSES = ((1.0, 0.0), (3.0, 0.1), (6.0, 0.2), (12.0, 0.3), (30.0, 0.4), (100.0, 0.5))
_WEIGHT_DROP_AT_PASSES = ((10.0, 0.0), (20.0, 0.15), (60.0, 0.35))
# It takes a tenth of the time, whatever the share.
_LEAST_WEIGHT_DROP = 0.05
# Of the widest layer that it suits; wider ones have a lower one, in proportion.
_LEARNING_RATE, _LEARNING_RATE_WIDTH = 0.01, 384
_WEIGHT_DECAY = 0.05
PICKED = frozenset({"hidden", "dropout", "learning_rate", "weight_dropout", "weight_decay"})
"""Names of the settings that are picked."""
# Characters are scored so many times as fast as they are trained on.
_SCORING_SPEED = 3.0
_LEAST_TRAINING = 0.1
_LEAST_SECONDS, _MOST_SECONDS = 20.0, 600.0
_SECONDS_FOR_A_MEGABYTE = 100.0


@dataclass(frozen=True)
class Choice:
    """What was picked.

    Attributes:
        network: its shape.
        training: how it is trained.
        chars_per_second: that it is expected to read.
        what: a line that says what was picked.
        why: a line that says why.
    """

    network: NetworkSettings
    training: TrainingSettings
    chars_per_second: float
    what: str
    why: str


def default_budget(characters: int) -> float:
    """Returns the seconds that suit a text of so many characters, where nobody says.

    >>> default_budget(1_000_000), default_budget(10_000), default_budget(1_000_000_000)
    (100.0, 20.0, 600.0)
    """
    seconds = _SECONDS_FOR_A_MEGABYTE * (characters / 1e6) ** 0.5
    return float(round(min(max(seconds, _LEAST_SECONDS), _MOST_SECONDS), -1))


def reference(network: NetworkSettings) -> NetworkSettings:
    """Returns the network that a machine's speed is told by: one layer of 256 such units, for 64 characters."""
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
    """Returns what to train in the seconds that there are for it.

    Args:
        network: the settings that are given; the others are picked.
        training: the same.
        given: names of the settings that are given.
        characters: of the training part.
        vocab_size: how many different ones there are.
        seconds: of training, and of what comes after it.
        reference_speed: characters per second that training `reference` would read here.
        closing_characters: how many are scored after training.
    """
    rate = reference_speed * _weights(reference(network), REFERENCE_VOCABULARY)  # weights times characters, a second
    if "hidden" not in given:
        sizes = [replace(network, hidden=units) for units in _WIDTHS]
        most = _MOST_WEIGHTS_A_CHARACTER * characters
        sizes = [size for size in sizes if _weights(size, vocab_size) <= most] or sizes[:1]

        def distance(size: NetworkSettings) -> float:
            weights = _weights(size, vocab_size)
            read = _training_seconds(seconds, rate / weights, closing_characters) * rate / weights
            return abs(math.log(read / weights / _interpolated(_CHARACTERS_A_WEIGHT_AT_PASSES, read / characters)))

        network = min(sizes, key=distance)
    speed = rate / _weights(network, vocab_size)
    seconds = _training_seconds(seconds, speed, closing_characters)
    passes = seconds * speed / characters
    weight_dropout = round(_interpolated(_WEIGHT_DROP_AT_PASSES, passes), 2)
    picked = TrainingSettings(
        dropout=round(_interpolated(_DROPOUT_AT_PASSES, passes), 2),
        learning_rate=round(_LEARNING_RATE * min(1.0, _LEARNING_RATE_WIDTH / network.hidden), 4),
        weight_dropout=weight_dropout if weight_dropout >= _LEAST_WEIGHT_DROP else 0.0,
        weight_decay=_WEIGHT_DECAY,
    )
    training = replace(training, **{name: getattr(picked, name) for name in PICKED - {"hidden"} - given})
    what = (
        f"{network.layers} × {network.hidden} {network.cell} units, embedding {network.embedding}, "
        f"{training.batch_size} rows × {training.sequence_length}, dropout {training.dropout:g}, "
        f"weight drop {training.weight_dropout:g}, rate {training.learning_rate:g}, decay {training.weight_decay:g}"
    )
    why = (
        f"about {_rounded(speed):,} characters per second here, {_rounded(seconds * speed):,} in {seconds:.0f} s: "
        f"{significant(passes, 3)} times the {characters:,} there are"
    )
    return Choice(network, training, speed, what, why)


def _training_seconds(seconds: float, speed: float, closing_characters: int) -> float:
    """Returns what is left of `seconds` to train in, at `speed`; always a part, for a budget may be too short."""
    return max(_LEAST_TRAINING * seconds, seconds - closing_characters / (_SCORING_SPEED * speed))


def _weights(network: NetworkSettings, vocab_size: int) -> int:
    """Returns the weights that take a character's time: the layers' and the head's; inputs are looked up."""
    return network.hidden * (CELLS[network.cell].gate_count * network.hidden * (2 * network.layers - 1) + vocab_size)


def _interpolated(points: tuple[tuple[float, float], ...], at: float) -> float:
    """Returns the value at `at` on lines between `points`, over the logarithm of their places."""
    for (before, low), (after, high) in itertools.pairwise(points):
        if at < after:
            share = max(0.0, math.log(at / before) / math.log(after / before))
            return low + share * (high - low)
    return points[-1][1]


def _rounded(number: float) -> int:
    digits = max(0, math.floor(math.log10(max(number, 1))) - 1)
    return round(number / 10**digits) * 10**digits
