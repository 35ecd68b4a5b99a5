"""How long a run is to be: by what was asked for, or by a budget of time and this machine's speed."""

import time
from collections.abc import Generator, Iterator
from dataclasses import replace

from charloom.data import Block, Lanes, TokenStream, evaluation_pass, ordered_pass
from charloom.errors import SettingError
from charloom.inference import score_blocks
from charloom.models import Network
from charloom.runs.calibration import PASSES
from charloom.runs.fit import fit_lanes
from charloom.runs.parts import Parts
from charloom.runs.recipe import PICKED, default_budget, pick, reference
from charloom.runs.run_settings import RunSettings
from charloom.settings import MOST_COUNT, TrainingSettings
from charloom.training import Budget, Deadline, Event, Notice, Pace, reading_speed, training_speed
from charloom.units import shortest_seconds

_STEPS = 64


def with_length(
    settings: RunSettings, parts: Parts, clock: Budget
) -> Generator[Event, None, tuple[RunSettings, float]]:
    """Returns the settings with a length, and with a budget all that was left open; and the expected speed.

    Starts `clock` on the budget.
    """
    training, characters = settings.training, len(parts.train)
    if training.epochs is not None or training.updates is not None:
        return settings, 0.0
    budget = training.budget
    if budget is None:
        budget = default_budget(characters + len(parts.validation))
        budget += round(clock.spent + clock.reserved)  # what nobody asked for begins when the text is read
        training = replace(training, budget=budget)
        yield Notice(
            f"budget {shortest_seconds(budget)}, which suits a text of this length; --budget, --epochs and "
            "--updates set how long to train"
        )
    clock.seconds = budget
    given = PICKED if settings.resume else settings.given  # all was picked before
    fitted, _ = fit_lanes(training, characters)
    speed = training_speed(reference(settings.network), fitted.lanes, fitted.unroll_length)
    closing = (1 + PASSES) * len(parts.validation)
    left = max(1.0, clock.left)
    choice = pick(settings.network, fitted, given, characters, parts.vocabulary.size, left, speed, closing)
    if not settings.resume:
        yield Notice(f"picked: {choice.what}")
        yield Notice(f"because: {choice.why}")
    asked = replace(choice.training, lanes=training.lanes, unroll_length=training.unroll_length)
    return replace(settings, network=choice.network, training=asked), choice.chars_per_second


def first_pace(training: TrainingSettings, lanes: Lanes, speed: float, clock: Budget) -> Pace:
    """Returns how the run is to go on; with a budget for the characters that can be read in it at `speed`.

    Raises:
        SettingError: it would have too many updates.
    """
    if training.pace:
        return Pace(training.pace)
    if training.budget is not None:
        updates = max(1, int(speed * clock.left / lanes.characters_per_update))
        return Pace(((0, min(updates, MOST_COUNT)),))
    updates = training.updates or lanes.updates_in(training.epochs or 1)
    if updates > MOST_COUNT:
        raise SettingError("epochs", f"ask for {updates:,} updates of this text, more than a run can count")
    return Pace(((0, updates),))


def deadline_of(clock: Budget, network: Network, validation: TokenStream) -> Deadline:
    """Returns the run's deadline; measures what is to be done when training is over, and compiles it."""
    evaluation_seconds, score_seconds = (
        _scoring_seconds(network, blocks(validation)) for blocks in (evaluation_pass, ordered_pass)
    )
    return Deadline(clock, score_seconds + PASSES * evaluation_seconds, evaluation_seconds)


def closing_seconds(network: Network, validation: TokenStream) -> float:
    """Returns about how long the evaluation and the scores take that end a run, from a moment of reading."""
    lanes = next(evaluation_pass(validation)).lanes
    read = {count: reading_speed(network, count, _STEPS) for count in {1, lanes}}
    return len(validation) * (1 / read[1] + (1 + PASSES) / read[lanes])


def _scoring_seconds(network: Network, blocks: Iterator[Block]) -> float:
    """Returns what scoring the blocks would take, by the first of them."""
    first = next(blocks)
    score_blocks(network, [first])  # which compiles
    begin = time.perf_counter()
    score_blocks(network, [first])
    seconds = time.perf_counter() - begin
    return seconds * (1 + sum(block.updates for block in blocks) / first.updates)
