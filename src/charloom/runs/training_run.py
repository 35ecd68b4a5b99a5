"""A training run: sources in, events on the way, the best model in a file at the end."""

import math
import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from charloom.artifacts import InputFiles, Output
from charloom.data import ContiguousBatches, TokenStream
from charloom.errors import BudgetError, CharloomError, OutputError, RunFolderError, SourceError
from charloom.inference import score_blocks
from charloom.model import MODEL, TextModel
from charloom.models import Network
from charloom.printable import shell_path
from charloom.reports import PAGE
from charloom.runs.calibration import calibrated
from charloom.runs.checkpoint_progress import CheckpointProgress, checked_progress
from charloom.runs.dataset_split import DatasetSplit, record_offsets, split_corpus
from charloom.runs.planning import closing_seconds, deadline_of, first_step_plan, score_pass, with_length
from charloom.runs.repeating import require_same_text
from charloom.runs.run_file import RunFile, TextFacts, as_read_back, read_run, run_file
from charloom.runs.run_folder import RunFolder
from charloom.runs.run_recorder import CheckpointTrees, RunRecorder
from charloom.runs.run_settings import RunSettings
from charloom.runs.splits import fit_batch_size
from charloom.runs.this_machine import machine_changes, machine_facts
from charloom.runs.token_cache import LARGE, EncodedCorpus, encoded_corpus
from charloom.settings import TrainingSettings
from charloom.text import Corpus, Sources, find_sources, read_corpus, read_standard_input
from charloom.training import (
    Budget,
    Event,
    LoopState,
    Notice,
    Saved,
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
    """What a run came to.

    Attributes:
        model: the best on validation.
        train_chars: characters of the training part.
        validation_chars: characters of the validation part.
        validation_nats_per_char: of the kept model, in one ordered pass with carried state.
        train_nats_per_char: mean while training between the kept model's evaluation and the one before.
        stopped: how the run ended.
        out: where the model was written; None where it was not.
        page: for a report beside the model, where the settings ask for one.
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
    began: float | None = None,
    reserved: float = 0.0,
) -> Generator[Event, None, TrainingResult]:
    """Yields the run's events and returns its result.

    Args:
        settings: what is asked for.
        should_stop: is asked several times a second; the run then evaluates, saves the best model and returns.
        began: when the time began that a budget is of, by `time.monotonic`; None for now.
        reserved: seconds of a budget that the caller needs afterwards.

    Raises:
        CharloomError: a source or the output is not as it should be; found out before training where it can be.
    """
    settings = replace(settings, network=as_read_back(settings.network), training=as_read_back(settings.training))
    clock = Budget(math.inf, 0.0 if began is None else time.monotonic() - began, reserved)
    if settings.folder is None:
        return (yield from _run(settings, None, should_stop, clock))
    with RunFolder.opened(settings.folder, fresh=not settings.resume) as folder:
        return (yield from _run(settings.from_anywhere(), folder, should_stop, clock))


def _run(
    settings: RunSettings, folder: RunFolder | None, should_stop: Callable[[], bool], clock: Budget
) -> Generator[Event, None, TrainingResult]:
    _output(settings, folder, InputFiles())  # before anything is read
    sources = _find(settings, folder)
    inputs = InputFiles(sources.paths, standard_input="-" in settings.sources)
    output = _output(settings, folder, inputs)
    page = _page(settings, output, sources)
    if output is not None and output.path != settings.out:
        yield Notice(f"{settings.out} is taken: the model is written to {output.path}")
        settings = replace(settings, out=output.path, out_is_default=False)
    split, trained_on, held = yield from _split_text(settings, folder, sources)
    vocabulary, train_stream, validation_stream = split.vocabulary, split.train, split.validation
    yield from map(Notice, split.notices)
    settings, speed = yield from with_length(settings, split, clock)
    training, notices = fit_batch_size(settings.training, len(train_stream))
    offsets = None
    if settings.text.delimiter is not None:  # a record is always read from its beginning
        training = replace(training, state_reset_probability=0.0)
        offsets = record_offsets(train_stream, training.batch_size)
    yield from map(Notice, notices)

    batches = ContiguousBatches(train_stream, training.batch_size, training.sequence_length, offsets)
    step_plan = first_step_plan(training, batches, speed, clock)
    if not settings.force:
        require_memory(
            training_bytes(
                settings.network,
                vocabulary.size,
                training.batch_size,
                training.sequence_length,
                checkpoints=folder is not None,
            )
        )
    first_weights = np.random.default_rng(training.seed)
    network = Network.init(settings.network, vocabulary.size, vocabulary.start_id, first_weights)
    deadline = None
    if training.budget is not None:
        deadline = deadline_of(clock, network, validation_stream, score_pass(settings.text))
    epochs = step_plan.steps * batches.characters_per_step / len(train_stream)
    yield Notice(
        f"{trained_on['name']}: {_counted(train_stream, settings)} to train on, "
        f"{_counted(validation_stream, settings)} to validate on, {vocabulary.size:,} different; "
        f"{network.parameters:,} parameters; "
        + (
            f"{step_plan.steps:,} steps, {epochs:.3g} epochs"
            if deadline is None
            else f"about {significant(epochs, 2)} epochs"
        )
    )
    if folder is not None and held is None:  # nothing that was asked for stands in the way any more
        held = run_file(folder.path, settings, trained_on, machine_facts())
        folder.write_run(held)
    recorder = RunRecorder(
        settings, training, trained_on, vocabulary, output, folder, clock, "" if held is None else held.digest
    )
    start, notices = (None, [])
    if folder is not None and held is not None and settings.resume:
        start, notices = _start(folder, held, recorder, network, training, step_plan)
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
            folder.forget()  # so that it can be begun with a longer one
        raise
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
    """Scores the kept model, saves it, and returns what the run came to.

    Raises:
        CharloomError: there is no model to keep.
    """
    if recorder.best is None and stopped.reason == "interrupted":
        raise CharloomError("stopped before there was a model worth keeping.")
    if recorder.best is None:
        raise CharloomError(
            "training diverged: the loss is not a number, and no model was worth keeping. Lower --learning-rate."
        )
    if stopped.reason == "diverged":
        yield Notice("the best model before that is kept. Lower --learning-rate")
    train_chars, validation_chars = len(split.train), len(split.validation)
    best = recorder.best
    recorder.best = replace(best, network=calibrated(best.network, split.validation, best.validation_nats_per_char))
    validation_nats = score_blocks(recorder.best.network, score_pass(settings.text)(split.validation)).nats_per_char
    if validation_nats > (guess := math.log(split.vocabulary.size)):
        yield Notice(
            f"this model is worse than a blind guess, of {bits_from_nats(guess):.3f} bits per character: it has hardly "
            "learnt anything yet. Train it longer"
        )
    # By the clock a run whose loss ran away went back at times that its plan does not tell.
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
        output = yield from _saved(model, output)
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


def _output(settings: RunSettings, folder: RunFolder | None, inputs: InputFiles) -> Output | None:
    """Returns where the model is written.

    Raises:
        OutputError: nothing can be written there, or it is not to be replaced.
    """
    if settings.out is None:
        return None
    if folder is None:
        return Output(settings.out, MODEL, inputs, is_default=settings.out_is_default, force=settings.force)
    if folder.keeps(settings.out):
        raise OutputError(f"cannot write {settings.out}: the run keeps a file of that name. Give another name.")
    return Output(
        settings.out,
        MODEL,
        inputs,
        is_default=settings.out_is_default,
        force=settings.force,
        own=folder.outputs() if settings.resume else (),
        record=folder.record_output,
    )


def _page(settings: RunSettings, output: Output | None, sources: Sources) -> Output | None:
    if not settings.report or output is None:
        return None
    inputs = InputFiles([*sources.paths, output.path], standard_input="-" in settings.sources)
    return Output(output.path.with_suffix(".html"), PAGE, inputs, is_default=True)


def _saved(model: TextModel, output: Output) -> Generator[Event, None, Output]:
    """Writes the model where it is to be, or beside that where somebody has put something else there meanwhile."""
    if output.is_taken:
        beside = output.fallback()
        yield Notice(f"{output.path} is taken by now: the model is written to {beside.path}")
        output = beside
    output.write(model.to_bytes())
    yield Saved(output.path)
    if (kept := output.finish()) is not None:
        yield Notice(f"{output.path}: the earlier model that stood there is kept as {kept} (--force replaces it)")
    return output


def _split_text(
    settings: RunSettings, folder: RunFolder | None, sources: Sources
) -> Generator[Event, None, tuple[DatasetSplit, dict[str, str | int], RunFile | None]]:
    """Returns the text in its parts, and what tells it from another; all that can be wrong with it is found out.

    The third is what a run that is resumed wrote down, with the paths as they are now; None for another run.
    """
    for path in (None if folder is None else folder.path, settings.cache):
        if path is not None:
            _require_outside(path, settings.sources, sources)
    corpus = yield from _read(sources, settings)
    metadata, held = corpus.metadata, None
    if settings.repeated is not None:
        require_same_text(settings.repeated.trained_on, metadata)
        if (changes := machine_changes(settings.repeated.training.get("machine", {}))) is not None:
            yield Notice(f"the file may differ from the repeated one in its last bits: {changes}")
    if folder is not None and settings.resume:
        held = _of_this_text(folder, settings, metadata)
        for file in sources.files:
            if file.path == "-" and settings.text_given:
                folder.keep_standard_input(file.content or b"")
        metadata = msgspec.to_builtins(held.trained_on)  # its name is the one that the text had at first
        if (changes := machine_changes(held.machine)) is not None:
            yield Notice(f"last bits may differ from those of a run that was never stopped: {changes}")
    yield from map(Notice, sources.notices)
    if isinstance(corpus, Corpus):
        return split_corpus(corpus, settings.text, settings.training), metadata, held
    return corpus.split(settings.training), metadata, held


def _find(settings: RunSettings, folder: RunFolder | None) -> Sources:
    """Returns the text's files; of one from a pipe the folder keeps a copy, to be read when the run is resumed."""
    standard_input = None
    if folder is not None and "-" in settings.sources:
        if settings.resume and not settings.text_given:
            standard_input = folder.standard_input()
        else:
            standard_input = read_standard_input()
        if not settings.resume:
            folder.keep_standard_input(standard_input)
    try:
        return find_sources(settings.sources, settings.text, standard_input)
    except SourceError as error:
        if folder is None or not settings.resume or settings.text_given:
            raise
        raise SourceError(
            f"{error} If the text is in another place now: charloom train --resume {shell_path(folder.path)} TEXT."
        ) from error


def _read(sources: Sources, settings: RunSettings) -> Generator[Event, None, Corpus | EncodedCorpus]:
    is_large = sources.estimated_size >= LARGE and settings.text.delimiter is None
    if is_large or settings.cache is not None:
        return (yield from encoded_corpus(sources, settings.text, settings.cache))
    return read_corpus(sources, settings.text)


def _require_outside(folder: Path, asked: Sequence[str | os.PathLike[str]], found: Sources) -> None:
    """Raises `OutputError` where `folder` would be read as a part of the text another time."""
    place = Path(os.path.realpath(folder))
    roots = [os.fspath(source).partition("**")[0] or "." for source in asked if "**" in os.fspath(source)]
    roots += [os.fspath(source) for source in asked if os.path.isdir(source)]
    inside = [root for root in roots if place.is_relative_to(os.path.realpath(root))]
    inside += [path for path in found.paths if Path(path).is_relative_to(place)]
    if inside:
        raise OutputError(
            f"{folder} lies in {inside[0]}, and would be read as text. Give a folder outside of it."
            if inside[0] in roots
            else f"{inside[0]} is in {folder}, and no text to train on. Give another folder, or other sources."
        )


def _of_this_text(folder: RunFolder, settings: RunSettings, now: Mapping[str, str | int]) -> RunFile:
    """Returns what the run in `folder` wrote down, with the paths in `settings`; writes them down if they changed.

    Raises:
        RunFolderError: its text is another now.
    """
    held = read_run(folder.path)
    text = msgspec.convert(now, TextFacts)
    if (held.trained_on.sha256, held.trained_on.characters) != (text.sha256, text.characters):
        raise RunFolderError(
            f"{folder.path} is a run on {held.trained_on}, and that is {text} now. Put the text back as it was, give "
            f"it by charloom train --resume {shell_path(folder.path)} TEXT, or begin another run."
        )
    renewed = run_file(folder.path, settings, msgspec.to_builtins(held.trained_on), held.machine)
    if renewed != held:
        folder.write_run(renewed)
    return renewed


def _start(
    folder: RunFolder,
    held: RunFile,
    recorder: RunRecorder,
    network: Network,
    training: TrainingSettings,
    step_plan: StepPlan,
) -> tuple[LoopState | None, list[str]]:
    """Returns where the newest checkpoint goes on, None where there is none, and notices."""
    state = initial_state(network, training.batch_size, step_rule(training))

    def checked(values: Any, path: Path) -> CheckpointProgress:
        return checked_progress(values, path, held.digest, step_plan, training.budget is not None)

    found, notices = folder.newest_checkpoint(CheckpointTrees(state, state, network), checked)
    if found is None:
        return None, [*notices, *folder.metrics.forget_after(0)]
    path, trees, progress = found
    start = recorder.start_from(trees, progress)
    notices += folder.metrics.forget_after(start.progress.evaluated)
    is_out_of_patience = training.patience is not None and start.progress.stale >= training.patience
    is_over = start.progress.evaluated >= start.progress.step_plan.steps or is_out_of_patience
    end = ", the end of this run: its model is scored and written once more" if is_over else ""
    return start, [*notices, f"going on from {path.name}: step {start.progress.step:,}{end}"]


def _counted(stream: TokenStream, settings: RunSettings) -> str:
    characters = f"{len(stream):,} characters"
    if settings.text.delimiter is None:
        return characters
    count = len(stream.starts)
    return f"{count:,} {'record' if count == 1 else 'records'} ({characters})"
