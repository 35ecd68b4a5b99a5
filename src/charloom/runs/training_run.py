"""A training run: from sources, through events, to the best model in a file."""

import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from charloom.artifacts import InputFiles, Output
from charloom.data import ContiguousBatches, TokenStream
from charloom.errors import BudgetError, CharloomError
from charloom.inference import score_blocks
from charloom.model import TextModel
from charloom.models import Network
from charloom.runs.calibration import calibrate
from charloom.runs.checkpoint_progress import CheckpointProgress, checked_progress
from charloom.runs.dataset_split import DatasetSplit, record_offsets
from charloom.runs.planning import closing_seconds, deadline_of, first_step_plan, plan_length, score_pass, shortfall
from charloom.runs.precision import with_precision
from charloom.runs.run_corpus import find_text, read_and_split
from charloom.runs.run_file import RunFile, as_read_back, run_file
from charloom.runs.run_folder import RunFolder
from charloom.runs.run_output import model_output, report_page, save_model
from charloom.runs.run_recorder import CheckpointArrays, RunRecorder
from charloom.runs.run_settings import RunSettings
from charloom.runs.splits import fit_batch_size
from charloom.runs.this_machine import machine_info
from charloom.settings import TrainingSettings
from charloom.training import (
    Budget,
    Event,
    LoopState,
    Notice,
    StepPlan,
    Stopped,
    TrainingLoop,
    initial_state,
    require_memory,
    root_key,
    step_rule,
    training_bytes,
)
from charloom.units import bits_from_nats, significant


@dataclass(frozen=True)
class TrainingResult:
    """The result of a run.

    Attributes:
        model: the best model on the held-out text.
        train_chars: characters of the training part.
        validation_chars: characters of the held-out part.
        validation_nats_per_char: loss of the kept model, in one ordered pass with carried state.
        train_nats_per_char: mean training loss between the kept model's evaluation and the previous one.
        stopped: how the run ended.
        out: where the model was written; None if it was kept in memory.
        page: where to write a report next to the model; None if the settings do not ask for one.
    """

    model: TextModel = field(repr=False)
    train_chars: int
    validation_chars: int
    train_nats_per_char: float
    validation_nats_per_char: float
    stopped: Stopped
    out: Path | None
    page: Output | None = field(repr=False)


def run_training(
    settings: RunSettings,
    should_stop: Callable[[], bool] = lambda: False,
    started: float | None = None,
    reserved: float = 0.0,
) -> Generator[Event, None, TrainingResult]:
    """Yields the run's events and returns its result.

    Args:
        settings: the run's settings.
        should_stop: called several times per second. Once it returns true, the run evaluates, saves the best model and
            returns.
        started: when the budget's time started, by `time.monotonic`; None for now.
        reserved: seconds of a budget that the caller needs afterwards.

    Raises:
        CharloomError: there is a problem with a source or the output. If possible it is raised before training.
    """
    settings = replace(settings, network=as_read_back(settings.network), training=as_read_back(settings.training))
    clock = Budget(math.inf, 0.0 if started is None else time.monotonic() - started, reserved)
    if settings.folder is None:
        return (yield from _run(settings, None, should_stop, clock))
    with RunFolder.opened(settings.folder, fresh=not settings.resume) as folder:
        return (yield from _run(settings.with_absolute_paths(), folder, should_stop, clock))


def _run(
    settings: RunSettings, folder: RunFolder | None, should_stop: Callable[[], bool], clock: Budget
) -> Generator[Event, None, TrainingResult]:
    models = () if settings.repeated_file is None else (settings.repeated_file,)
    model_output(settings, folder, InputFiles(models))  # raises before anything is read
    sources = find_text(settings, folder)
    inputs = InputFiles([*sources.paths, *models], standard_input="-" in settings.sources)
    output = model_output(settings, folder, inputs)
    page = report_page(settings, output, sources)
    if output is not None and output.path != settings.out:
        yield Notice(f"{settings.out} is the name of another file: charloom writes the model to {output.path}")
        settings = replace(settings, out=output.path, out_is_default=False)
    split, trained_on, stored = yield from read_and_split(settings, folder, sources)
    vocabulary, train_stream, validation_stream = split.vocabulary, split.train, split.validation
    yield from map(Notice, split.notices)
    # Not earlier, because it may compile the kernels: a missing text is reported at once.
    training, notices = with_precision(settings.training, settings.network)
    settings = replace(settings, training=training)
    yield from map(Notice, notices)
    settings, speed = yield from plan_length(settings, split, clock)
    training, notices = fit_batch_size(settings.training, len(train_stream))
    offsets = None
    if settings.text.delimiter is not None:  # records always start from the zero state
        training = replace(training, state_reset_probability=0.0)
        offsets = record_offsets(train_stream, training.batch_size)
    yield from map(Notice, notices)

    batches = ContiguousBatches(train_stream, training.batch_size, training.sequence_length, offsets)
    step_plan = first_step_plan(training, batches, speed, clock)
    if not settings.force:
        shape = vocabulary.size, training.batch_size, training.sequence_length
        require_memory(training_bytes(settings.network, *shape, checkpoints=folder is not None))
    network = Network.init(settings.network, vocabulary.size, vocabulary.start_id, np.random.default_rng(training.seed))
    deadline = None
    if training.budget is not None:
        deadline = deadline_of(clock, network, validation_stream, score_pass(settings.text))
    epochs = step_plan.steps * batches.characters_per_step / len(train_stream)
    yield Notice(
        f"{trained_on['name']}: {_count_text(train_stream, settings)} to train on, "
        f"{_count_text(validation_stream, settings)} to validate on; vocabulary size {vocabulary.size:,}; "
        f"{network.parameters:,} parameters; "
        + (
            f"{step_plan.steps:,} steps, {epochs:.3g} epochs"
            if deadline is None
            else f"about {significant(epochs, 2)} epochs"
        )
    )
    if folder is not None and stored is None:  # all checks have passed
        stored = run_file(folder.path, settings, trained_on, machine_info())
        folder.write_run(stored)
    recorder = RunRecorder(
        settings, training, trained_on, vocabulary, output, folder, clock, "" if stored is None else stored.digest
    )
    start, notices = (None, [])
    if folder is not None and stored is not None and settings.resume:
        start, notices = _start(folder, stored, recorder, network, training, step_plan)
    yield from map(Notice, notices)
    if deadline is not None:
        recorder.warm_up(network)
    key = root_key(training.seed)
    loop = TrainingLoop(network, batches, validation_stream, training, step_plan, key, start, deadline)
    try:
        stopped = yield from recorder.follow(
            loop, should_stop, lambda network: closing_seconds(network, validation_stream, score_pass(settings.text))
        )
    except BudgetError:
        if folder is not None and not settings.resume:
            folder.remove_run()  # so that the folder can be used with a longer budget
        raise
    if deadline is not None and not settings.resume:  # a resumed run was planned at another time
        yield from map(Notice, shortfall(epochs, stopped))
    return (yield from _finished(settings, split, recorder, loop, stopped, output, page))


def _finished(
    settings: RunSettings,
    split: DatasetSplit,
    recorder: RunRecorder,
    loop: TrainingLoop,
    stopped: Stopped,
    output: Output | None,
    page: Output | None,
) -> Generator[Event, None, TrainingResult]:
    """Scores and saves the kept model, and returns the result.

    Raises:
        CharloomError: there is no model to keep.
    """
    if recorder.best is None and stopped.reason == "interrupted":
        raise CharloomError("training was stopped before there was a model to keep.")
    if recorder.best is None:
        raise CharloomError(
            "training diverged: the loss is not a number, and there is no earlier model to keep. Lower --learning-rate."
        )
    if stopped.reason == "diverged":
        yield Notice("keeping the best model from before training diverged. Lower --learning-rate")
    train_chars, validation_chars = len(split.train), len(split.validation)
    best = recorder.best
    recorder.best = replace(best, network=calibrate(best.network, split.validation, best.validation_nats_per_char))
    validation_nats = score_blocks(recorder.best.network, score_pass(settings.text)(split.validation)).nats_per_char
    if validation_nats > (uniform_nats := math.log(split.vocabulary.size)):
        yield Notice(
            "this model is worse than one that gives every character the same probability "
            f"({bits_from_nats(uniform_nats):.3f} bits per character). Train it longer"
        )
    # In a run with a budget, the step plan does not record when a diverged loss made training go back.
    went_back = loop.state.progress.retries > 0 and settings.training.budget is not None
    is_repeatable = stopped.reason in ("finished", "patience") and not went_back
    model = recorder.model(
        {
            "train_chars": train_chars,
            "validation_chars": validation_chars,
            "validation_nats_per_char": validation_nats,
            "is_repeatable": is_repeatable,
        }
    )
    if output is not None:
        output = yield from save_model(model, output)
    return TrainingResult(
        model=model,
        train_chars=train_chars,
        validation_chars=validation_chars,
        train_nats_per_char=recorder.best.train_nats_per_char,
        validation_nats_per_char=validation_nats,
        stopped=stopped,
        out=None if output is None else output.path,
        page=page,
    )


def _start(
    folder: RunFolder,
    stored: RunFile,
    recorder: RunRecorder,
    network: Network,
    training: TrainingSettings,
    step_plan: StepPlan,
) -> tuple[LoopState | None, list[str]]:
    """Returns the state to resume from, None without a checkpoint, and notices."""
    state = initial_state(network, training.batch_size, step_rule(training))

    def checked(values: Any, path: Path) -> CheckpointProgress:
        return checked_progress(values, path, stored.digest, step_plan, training.budget is not None)

    found, notices = folder.newest_checkpoint(CheckpointArrays(state, state, network), checked)
    if found is None:
        return None, [*notices, *folder.metrics.remove_after(0)]
    path, arrays, progress = found
    start = recorder.resume_from(arrays, progress)
    notices += folder.metrics.remove_after(start.progress.evaluated)
    is_out_of_patience = training.patience is not None and start.progress.stale >= training.patience
    is_over = start.progress.evaluated >= start.progress.step_plan.steps or is_out_of_patience
    end = ", the end of this run; scoring and saving its model again" if is_over else ""
    return start, [*notices, f"resuming from {path.name}: step {start.progress.step:,}{end}"]


def _count_text(stream: TokenStream, settings: RunSettings) -> str:
    characters = f"{len(stream):,} characters"
    if settings.text.delimiter is None:
        return characters
    count = len(stream.starts)
    return f"{count:,} {'record' if count == 1 else 'records'} ({characters})"
