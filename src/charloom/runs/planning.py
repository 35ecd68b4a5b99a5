"""Plans the length of a run: from the settings, or from a time budget and this machine's speed."""

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace

from charloom.data import Block, ContiguousBatches, TokenStream, evaluation_pass, ordered_pass, record_pass
from charloom.errors import SettingError
from charloom.inference import score_blocks
from charloom.models import Dense, Network
from charloom.runs.calibration import CALIBRATION_PASSES, scale_logits
from charloom.runs.dataset_split import DatasetSplit
from charloom.runs.recipe import PICKED, default_budget, pick, reference
from charloom.runs.run_settings import RunSettings
from charloom.runs.splits import fit_batch_size
from charloom.settings import MAX_COUNT, TextSettings, TrainingSettings
from charloom.training import (
    Budget,
    Deadline,
    Event,
    Notice,
    StepPlan,
    Stopped,
    reading_speed,
    step_rule,
    training_speed,
)
from charloom.units import shortest_seconds, significant

ScorePass = Callable[[TokenStream], Iterator[Block]]
_TIMED_PARTS, _MAX_TIMED_SEQUENCES = 10, 64
"""Repeated timings use one part of this many, but at most this number of sequences."""
_STEPS = 64
_EXPECTED_FRACTION = 0.6
"""A run that makes less than this fraction of the planned epochs was slowed down by other programs."""


def plan_length(
    settings: RunSettings, split: DatasetSplit, clock: Budget
) -> Generator[Event, None, tuple[RunSettings, float]]:
    """Returns the settings with a length, and the expected speed. Yields notices about what it chose.

    For a run with a budget it picks the settings that were not given, and starts `clock` on the budget.
    """
    training, characters = settings.training, len(split.train)
    if training.epochs is not None or training.steps is not None:
        return settings, 0.0
    fitted, _ = fit_batch_size(training, characters)
    network = reference(settings.network)
    speed = training_speed(network, fitted.batch_size, fitted.sequence_length, step_rule(training).precision)
    budget = training.budget
    if budget is None:
        budget = default_budget(characters + len(split.validation))
        # A default budget starts when the text is read and the kernels are compiled.
        budget += round(clock.spent + clock.reserved)
        training, fitted = replace(training, budget=budget), replace(fitted, budget=budget)
        yield Notice(
            f"budget {shortest_seconds(budget)}, chosen for a text of this length. "
            "Set another length with --budget, --epochs or --steps"
        )
    clock.seconds = budget
    given = PICKED if settings.resume else settings.given  # a resumed run has picked all settings before
    closing = (1 + CALIBRATION_PASSES) * len(split.validation)
    left = max(1.0, clock.left)
    choice = pick(settings.network, fitted, given, characters, split.vocabulary.size, left, speed, closing)
    if not settings.resume:
        yield Notice(f"picked: {choice.what}")
        yield Notice(f"because: {choice.why}")
    chosen = replace(choice.training, batch_size=training.batch_size, sequence_length=training.sequence_length)
    return replace(settings, network=choice.network, training=chosen), choice.chars_per_second


def first_step_plan(training: TrainingSettings, batches: ContiguousBatches, speed: float, clock: Budget) -> StepPlan:
    """Returns the step plan with which a run starts. With a budget it covers what can be read in it at `speed`.

    Raises:
        SettingError: the run would have too many steps.
    """
    if training.step_plan:
        return StepPlan(training.step_plan)
    if training.budget is not None:
        steps = max(1, int(speed * clock.left / batches.characters_per_step))
        return StepPlan(((0, min(steps, MAX_COUNT)),))
    steps = training.steps or batches.steps_in(training.epochs or 1)
    if steps > MAX_COUNT:
        raise SettingError("epochs", f"would take {steps:,} steps with this text, and a run has at most {MAX_COUNT:,}")
    return StepPlan(((0, steps),))


def shortfall(epochs: float, stopped: Stopped) -> list[str]:
    """Returns a notice if a run with a budget made much fewer epochs than its first plan, which had `epochs`."""
    if stopped.reason != "finished" or stopped.epoch >= _EXPECTED_FRACTION * epochs:
        return []
    made, planned = significant(stopped.epoch, 2), significant(epochs, 2)
    return [
        f"training made {made} epochs instead of about {planned}, because the machine was slower than at the start. "
        "For a better model, run the same command again when the machine is less busy."
    ]


def score_pass(text: TextSettings) -> ScorePass:
    """Returns the pass that scores the kept model. The order of records does not matter, as each starts from zero."""
    return ordered_pass if text.delimiter is None else record_pass


def closing_seconds(network: Network, validation: TokenStream, final_pass: ScorePass) -> float:
    """Estimates how long the evaluation and the scores at the end of a run take, from a short measurement."""
    evaluation_batch_size, score_batch_size = (
        next(blocks(validation)).batch_size for blocks in (evaluation_pass, final_pass)
    )
    read = {count: reading_speed(network, count, _STEPS) for count in {score_batch_size, evaluation_batch_size}}
    return len(validation) * (1 / read[score_batch_size] + (1 + CALIBRATION_PASSES) / read[evaluation_batch_size])


def deadline_of(clock: Budget, network: Network, validation: TokenStream, final_pass: ScorePass) -> Deadline:
    """Returns the run's deadline. Compiles and measures the work that follows training.

    Args:
        clock: the clock of the run's budget.
        network: a network of the shape to train.
        validation: the held-out text, which evaluations and the final score read.
        final_pass: makes the blocks of the final score.
    """
    evaluation, score = (_ScoringTimer(blocks(validation)) for blocks in (evaluation_pass, final_pass))
    evaluation_seconds, score_seconds = (scoring.compiled_seconds(network) for scoring in (evaluation, score))
    if isinstance(network.head, Dense):
        scale_logits(network, 1.0)  # compiles it for calibration
    return Deadline(clock, score_seconds, evaluation_seconds, CALIBRATION_PASSES, score.seconds)


class _ScoringTimer:
    """Estimates how long scoring some blocks takes, from a part of the first block."""

    def __init__(self, blocks: Iterator[Block]) -> None:
        first = next(blocks)
        self._sequences = first.steps + sum(block.steps for block in blocks)
        self._first = first
        self._part = replace(
            first, steps=max(1, min(first.steps, self._sequences // _TIMED_PARTS, _MAX_TIMED_SEQUENCES))
        )

    def compiled_seconds(self, network: Network) -> float:
        """Compiles the scoring, and returns the seconds for all blocks, from the whole first block."""
        score_blocks(network, [self._first])
        return self._estimate(network, self._first)

    def seconds(self, network: Network) -> float:
        """Returns the seconds for all blocks now, from a part small enough to be timed often."""
        return self._estimate(network, self._part)

    def _estimate(self, network: Network, block: Block) -> float:
        start = time.perf_counter()
        score_blocks(network, [block])
        return (time.perf_counter() - start) * self._sequences / block.steps
