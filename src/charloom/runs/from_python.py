"""`charloom.train` and `charloom.resume`: the `train` command as Python functions."""

import builtins
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from charloom.arguments import flag
from charloom.cell_facts import CellName
from charloom.errors import SettingError
from charloom.model import TextModel
from charloom.runs.interruption import train_interruptibly
from charloom.runs.run_file import settings_of_run
from charloom.runs.run_settings import RunSettings
from charloom.settings import (
    NetworkSettings,
    PrecisionChoice,
    Schedule,
    TextSettings,
    TrainingSettings,
    require_path,
)
from charloom.training import Event
from charloom.units import parse_seconds


def train(
    *sources: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    lowercase: bool = TextSettings.lowercase,
    bytes: bool = False,  # noqa: A002  # named like the command line's option
    encoding: str = TextSettings.encoding,
    records: bool = False,
    delimiter: str | None = None,
    min_count: int = TextSettings.min_count,
    cell: CellName | None = None,
    hidden: int | None = None,
    layers: int | None = None,
    embedding: int | None = None,
    batch_size: int | None = None,
    sequence_length: int | None = None,
    dropout: float | None = None,
    learning_rate: float | None = None,
    weight_dropout: float | None = None,
    weight_decay: float | None = None,
    schedule: Schedule = TrainingSettings.schedule,
    warmup_ratio: float = TrainingSettings.warmup_ratio,
    clip_norm: float = TrainingSettings.clip_norm,
    precision: PrecisionChoice = TrainingSettings.precision,
    state_reset_probability: float | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    budget: str | float | None = None,
    validation: float | None = None,
    patience: int | None = None,
    seed: int = TrainingSettings.seed,
    force: bool = False,
    run: str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
) -> TextModel:
    """Returns a model trained on `sources`: the one with the lowest validation loss of the run.

    The keywords are the options of `charloom train`. The Settings page lists their defaults and ranges. With a budget,
    charloom picks `hidden`, `dropout`, `learning_rate`, `weight_dropout` and `weight_decay` if they are None. Otherwise
    None means the default.

    Ctrl-C stops training and returns the best model so far, with a warning. A second one raises KeyboardInterrupt.

    Args:
        *sources: Files, folders, glob patterns, corpus names, or "-" for standard input.
        out: Model file, written at each improvement. An earlier model is kept as NAME.previous.safetensors. Without it,
            the model is only returned.
        lowercase: Convert the text to lower case.
        bytes: Model raw bytes instead of characters.
        encoding: Encoding of the text.
        records: Treat each line as a separate text.
        delimiter: Text between records, if it is not the end of a line.
        min_count: Replace characters that occur less often by one unknown character.
        cell: Type of the recurrent layers: "lstm", "gru", "elman" or "mingru".
        hidden: Units per layer.
        layers: Number of recurrent layers.
        embedding: Size of the character embedding.
        batch_size: Rows per batch. Each row is a contiguous stream of the text.
        sequence_length: Characters per row in one step (truncated BPTT).
        dropout: Share of each layer's outputs that is dropped.
        learning_rate: Highest learning rate of the schedule.
        weight_dropout: Share of the recurrent weights that is dropped.
        weight_decay: Decoupled weight decay, as in AdamW.
        schedule: Learning-rate schedule: "cosine" falls to zero at the last step, "constant" stays.
        warmup_ratio: Fraction of the run in which the learning rate rises from zero.
        clip_norm: Global norm that gradients are clipped to.
        precision: Precision of the factors of matrix products: "float32", "bfloat16", or "auto" for bfloat16 where the
            processor multiplies it faster.
        state_reset_probability: Probability of zeroing a row's state before a step. Records always begin from zero.
        epochs: Passes over the training text, instead of a budget.
        steps: Optimizer steps, instead of a budget.
        budget: Time that the call may take: seconds, or a text such as "90s" or "10m". The default, without `epochs`
            and `steps`, depends on the length of the text.
        validation: What to hold out: a share below 1, or a number of characters (from the end) or records (drawn by the
            seed). The default is 0.1, at most 500,000 characters.
        patience: Evaluations without improvement before early stopping. None makes all steps.
        seed: Random seed of the initial weights, dropout and held-out records.
        force: Replace an earlier model at `out` without keeping it, and train even if memory seems too small.
        run: Folder for checkpoints and metrics. `resume` continues from it.
        cache: Folder that keeps the encoded text, so that it does not fill the memory. For files of 100 MB and more the
            default is the user's cache folder. Records are always in memory.
        on_event: Called with each event of the run, for example to show progress.

    Raises:
        SettingError: A setting is out of its range, or contradicts another one.
        SourceError: A source cannot be read.
        TooShortError: The text is too short.
        BudgetError: The budget is too short for this text on this machine.
        OutputError: A file or folder cannot be written, or another process is using it.
        CharloomError: Any of these, or another problem that a user can fix.
    """
    began = time.monotonic()
    network = _given(cell=cell, hidden=hidden, layers=layers, embedding=embedding)
    training = _given(
        batch_size=batch_size,
        sequence_length=sequence_length,
        dropout=dropout,
        learning_rate=learning_rate,
        weight_dropout=weight_dropout,
        weight_decay=weight_decay,
        state_reset_probability=state_reset_probability,
    )
    settings = RunSettings(
        sources=tuple(map(_as_text, sources)),
        out=None if out is None else require_path("out", out),
        force=flag("force", force),
        text=TextSettings(
            units="bytes" if flag("bytes", bytes) else "chars",
            lowercase=lowercase,
            encoding=encoding,
            delimiter="\n" if flag("records", records) and delimiter is None else delimiter,
            min_count=min_count,
        ),
        network=NetworkSettings(**network),
        training=TrainingSettings(
            **training,
            epochs=epochs,
            steps=steps,
            budget=_seconds(budget),
            validation=validation,
            schedule=schedule,
            warmup_ratio=warmup_ratio,
            clip_norm=clip_norm,
            precision=precision,
            patience=patience,
            seed=seed,
        ),
        folder=None if run is None else require_path("run", run, folder=True),
        cache=None if cache is None else require_path("cache", cache, folder=True),
        given=frozenset({*network, *training}),
    )
    return train_interruptibly(settings, on_event, began).model


def _given(**settings: Any) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


def _as_text(source: str | builtins.bytes | os.PathLike[Any]) -> str:
    if source != "":
        require_path("source", source, folder=True)
    return os.fsdecode(source)


def _seconds(budget: str | float | None) -> float | None:
    try:
        return parse_seconds(budget) if isinstance(budget, str) else budget
    except ValueError as error:
        raise SettingError("budget", f"must be a duration: {error}") from None


def resume(
    run: str | os.PathLike[str],
    on_event: Callable[[Event], None] = lambda event: None,
    *,
    sources: Sequence[str | os.PathLike[str]] = (),
    out: str | os.PathLike[str] | None = None,
) -> TextModel:
    """Returns the model of an earlier run after finishing that run.

    A run set in epochs or steps gives the same model as an uninterrupted one, byte for byte on the same machine. A run
    with a budget spends what is left of its time.

    Args:
        run: The run's folder, as `train` got it.
        on_event: Called with each event of the run.
        sources: The same text in another place. By default charloom looks where the text was, and in the same place
            relative to the folder.
        out: Another model file to write.

    Raises:
        RunFolderError: The folder does not contain a run that this version can resume, or the text has changed.
        SourceError: The text cannot be read.
        OutputError: A file or folder cannot be written, or another process is using it.
        CharloomError: Any of these, or another problem that a user can fix.
    """
    settings = settings_of_run(require_path("run", run, folder=True))
    if sources:
        settings = replace(settings, sources=tuple(map(_as_text, sources)), text_given=True)
    if out is not None:
        settings = replace(settings, out=require_path("out", out))
    return train_interruptibly(settings, on_event).model
