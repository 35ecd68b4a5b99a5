"""`charloom.train` and `charloom.resume`: runs as Python asks for them, in the command line's words."""

import builtins
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from charloom.arguments import flag
from charloom.errors import SettingError
from charloom.model import TextModel
from charloom.runs.interruption import train_interruptibly
from charloom.runs.run_file import settings_of_run
from charloom.runs.run_settings import RunSettings
from charloom.settings import CellName, NetworkSettings, Schedule, TextSettings, TrainingSettings, require_path
from charloom.training import Event
from charloom.units import parse_seconds


def train(
    *sources: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    lowercase: bool = TextSettings.lowercase,
    bytes: bool = False,  # noqa: A002  # the command line's word
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
    warmup_ratio: float = TrainingSettings.warmup,
    clip_norm: float = TrainingSettings.clip_norm,
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
    """Returns a model trained on `sources`, the best on the validation part.

    The arguments are the command line's; see `TrainingSettings` and `NetworkSettings`. Those that are None have the
    default from there, or with a budget what suits the text and the time.

    Ctrl-C stops the training and returns the best model so far, with a warning; a second one raises KeyboardInterrupt.

    Args:
        budget: how long the call may take: seconds, or such as "90s" or "10m". Without `epochs` and `steps` the
            default is a budget that suits the text.
        records: whether each line is a separate text.
        delimiter: what stands between such texts, where it is not the line's end.
        min_count: characters that occur less often become one unknown character.
        schedule: "cosine" falls to zero at the last step, "constant" stays.
        warmup_ratio: share of the run in which the learning rate rises from zero.
        clip_norm: gradients with a larger global norm are scaled down to it.
        state_reset_probability: chance that a row's state is zeroed before a step; records always begin from zero.
        out: a model file that is written at each improvement. A model that another call or command left there is kept
            as NAME.previous.safetensors; what is not a model is not replaced.
        force: whether an earlier model at `out` is replaced without being kept, and whether training begins though
            it takes more memory than there is, by an estimate.
        run: a folder for checkpoints and metrics; `resume` continues from what it holds.
        cache: a folder that the text is kept in, encoded, to be read from there instead of from memory; files of
            100 MB and more always are (but for records), in the user's cache folder where none is given.
        on_event: is called with each event of the run, to show progress.

    Raises:
        CharloomError: a source, a setting or the output is not as it should be.
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
            warmup=warmup_ratio,
            clip_norm=clip_norm,
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
    """Returns the model of the run in the folder `run` after the rest of it.

    A run in epochs or steps gives the same model as an uninterrupted one; one with a budget spends what is left.

    Args:
        run: the folder.
        on_event: is called with each event.
        sources: the same text in another place; by default it is where it was, or as far from the folder as it was.
        out: another model file.

    Raises:
        CharloomError: there is no run to resume, or its text is another now.
    """
    settings = settings_of_run(require_path("run", run, folder=True))
    if sources:
        settings = replace(settings, sources=tuple(map(_as_text, sources)), text_given=True)
    if out is not None:
        settings = replace(settings, out=require_path("out", out))
    return train_interruptibly(settings, on_event).model
