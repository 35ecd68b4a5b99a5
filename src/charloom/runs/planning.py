"""How long a run is to be: by what was asked for, or by a budget of time and this machine's speed."""

import time
from collections.abc import Generator
from dataclasses import replace

from charloom.data import Lanes, TokenStream, evaluation_pass, ordered_pass
from charloom.errors import SettingError
from charloom.inference import score_blocks
from charloom.models import Network
from charloom.runs.calibration import PASSES
from charloom.runs.parts import Parts
from charloom.runs.recipe import PICKED, default_budget, pick, reference
from charloom.runs.run_settings import RunSettings
from charloom.settings import TrainingSettings
from charloom.training import Budget, Deadline, Event, Notice, Pace, training_speed
from charloom.units import shortest_seconds


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
        budget += round(clock.spent)  # what nobody asked for begins when the text is read
        training = replace(training, budget=budget)
        yield Notice(
            f"budget {shortest_seconds(budget)}, which suits a text of this length; --budget, --epochs and "
            "--updates set how long to train"
        )
    clock.seconds = budget
    given = PICKED if settings.resume else settings.given  # all was picked before
    speed, left = training_speed(reference(settings.network)), max(1.0, clock.left)
    choice = pick(settings.network, training, given, characters, parts.vocabulary.size, left, speed)
    if not settings.resume:
        yield Notice(f"picked: {choice.what}")
        yield Notice(f"because: {choice.why}")
    return replace(settings, network=choice.network, training=choice.training), choice.chars_per_second


def first_pace(training: TrainingSettings, lanes: Lanes, speed: float, clock: Budget) -> Pace:
    """Returns how the run is to go on; with a budget for the characters that can be read in it at `speed`.

    Raises:
        SettingError: it would have too many updates.
    """
    if training.pace:
        return Pace(training.pace)
    if training.budget is not None:
        return Pace(((0, max(1, int(speed * clock.left / lanes.characters_per_update))),))
    updates = training.updates or lanes.updates_in(training.epochs or 1)
    if updates >= 2**31:
        raise SettingError("epochs", f"ask for {updates:,} updates of this text, more than a run can count")
    return Pace(((0, updates),))


def deadline_of(clock: Budget, network: Network, validation: TokenStream) -> Deadline:
    """Returns the run's deadline; measures what is to be done when training is over, and compiles it."""
    seconds = []
    for blocks in (evaluation_pass, ordered_pass):
        first = next(blocks(validation))
        score_blocks(network, [first])  # which compiles
        begin = time.perf_counter()
        score_blocks(network, [first])
        read = first.updates * first.lanes * first.unroll_length
        seconds.append((time.perf_counter() - begin) * max(1, len(validation) / read))
    evaluation_seconds, closing_seconds = seconds
    return Deadline(clock, closing_seconds + PASSES * evaluation_seconds, evaluation_seconds)
