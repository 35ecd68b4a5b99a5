"""How long a run is to be: by what was asked for, or by a budget of time and this machine's speed."""

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace

from charloom.data import Block, ContiguousBatches, TokenStream, evaluation_pass, ordered_pass, record_pass
from charloom.errors import SettingError
from charloom.inference import score_blocks
from charloom.models import Dense, Network
from charloom.runs.calibration import PASSES, sharpened
from charloom.runs.dataset_split import DatasetSplit
from charloom.runs.recipe import PICKED, default_budget, pick, reference
from charloom.runs.run_settings import RunSettings
from charloom.runs.splits import fit_batch_size
from charloom.settings import MOST_COUNT, TextSettings, TrainingSettings
from charloom.training import Budget, Deadline, Event, Notice, StepPlan, reading_speed, training_speed
from charloom.units import shortest_seconds

ScorePass = Callable[[TokenStream], Iterator[Block]]
_PART, _MOST_SEQUENCES = 10, 64
"""What is timed again and again is this part of all sequences, and no more than so many."""
_STEPS = 64


def with_length(
    settings: RunSettings, split: DatasetSplit, clock: Budget
) -> Generator[Event, None, tuple[RunSettings, float]]:
    """Returns the settings with a length, and with a budget all that was left open; and the expected speed.

    Starts `clock` on the budget.
    """
    training, characters = settings.training, len(split.train)
    if training.epochs is not None or training.steps is not None:
        return settings, 0.0
    fitted, _ = fit_batch_size(training, characters)
    speed = training_speed(reference(settings.network), fitted.batch_size, fitted.sequence_length)
    budget = training.budget
    if budget is None:
        budget = default_budget(characters + len(split.validation))
        # What nobody asked for begins when the text is read and the kernels are compiled.
        budget += round(clock.spent + clock.reserved)
        training, fitted = replace(training, budget=budget), replace(fitted, budget=budget)
        yield Notice(
            f"budget {shortest_seconds(budget)}, which suits a text of this length; --budget, --epochs and "
            "--steps set how long to train"
        )
    clock.seconds = budget
    given = PICKED if settings.resume else settings.given  # all was picked before
    closing = (1 + PASSES) * len(split.validation)
    left = max(1.0, clock.left)
    choice = pick(settings.network, fitted, given, characters, split.vocabulary.size, left, speed, closing)
    if not settings.resume:
        yield Notice(f"picked: {choice.what}")
        yield Notice(f"because: {choice.why}")
    asked = replace(choice.training, batch_size=training.batch_size, sequence_length=training.sequence_length)
    return replace(settings, network=choice.network, training=asked), choice.chars_per_second


def first_step_plan(training: TrainingSettings, batches: ContiguousBatches, speed: float, clock: Budget) -> StepPlan:
    """Returns how the run is to go on; with a budget for the characters that can be read in it at `speed`.

    Raises:
        SettingError: it would have too many steps.
    """
    if training.step_plan:
        return StepPlan(training.step_plan)
    if training.budget is not None:
        steps = max(1, int(speed * clock.left / batches.characters_per_step))
        return StepPlan(((0, min(steps, MOST_COUNT)),))
    steps = training.steps or batches.steps_in(training.epochs or 1)
    if steps > MOST_COUNT:
        raise SettingError("epochs", f"ask for {steps:,} steps of this text, more than a run can count")
    return StepPlan(((0, steps),))


def score_pass(text: TextSettings) -> ScorePass:
    """Returns the pass that the kept model's score is of: records in any order, for each starts from zero."""
    return ordered_pass if text.delimiter is None else record_pass


def closing_seconds(network: Network, validation: TokenStream, final_pass: ScorePass) -> float:
    """Returns about how long the evaluation and the scores take that end a run, from a moment of reading."""
    evaluation_batch_size, score_batch_size = (
        next(blocks(validation)).batch_size for blocks in (evaluation_pass, final_pass)
    )
    read = {count: reading_speed(network, count, _STEPS) for count in {score_batch_size, evaluation_batch_size}}
    return len(validation) * (1 / read[score_batch_size] + (1 + PASSES) / read[evaluation_batch_size])


def deadline_of(clock: Budget, network: Network, validation: TokenStream, final_pass: ScorePass) -> Deadline:
    """Returns the run's deadline; measures what is to be done when training is over, and compiles it.

    Args:
        clock: of the run's budget.
        network: one such as is trained.
        validation: what evaluations and the kept model's score read.
        final_pass: makes the blocks that the score reads it in.
    """
    evaluation, score = (_Scoring(blocks(validation)) for blocks in (evaluation_pass, final_pass))
    evaluation_seconds, score_seconds = (scoring.compiled_seconds(network) for scoring in (evaluation, score))
    if isinstance(network.head, Dense):
        sharpened(network, 1.0)  # which calibration will do, compiled here as well
    return Deadline(clock, score_seconds, evaluation_seconds, PASSES, score.seconds)


class _Scoring:
    """Tells how long scoring some blocks takes, by a part of the first of them."""

    def __init__(self, blocks: Iterator[Block]) -> None:
        first = next(blocks)
        self._sequences = first.steps + sum(block.steps for block in blocks)
        self._first = first
        self._part = replace(first, steps=max(1, min(first.steps, self._sequences // _PART, _MOST_SEQUENCES)))

    def compiled_seconds(self, network: Network) -> float:
        """Returns what all blocks take, by the whole of the first; compiles what there is to compile."""
        score_blocks(network, [self._first])
        return self._by(network, self._first)

    def seconds(self, network: Network) -> float:
        """Returns what all blocks take now, by so small a part that it may be asked for often."""
        return self._by(network, self._part)

    def _by(self, network: Network, block: Block) -> float:
        begin = time.perf_counter()
        score_blocks(network, [block])
        return (time.perf_counter() - begin) * self._sequences / block.steps
