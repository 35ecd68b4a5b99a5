"""`charloom train`."""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from charloom.cell_facts import CELL_FACTS
from charloom.cli.earlier_runs import repeated_settings, resumed_settings
from charloom.cli.interrupt import Interrupt
from charloom.cli.options import (
    FAILURE,
    Decorator,
    FilePath,
    FolderPath,
    SourceName,
    json_option,
    set_threads,
    threads_option,
)
from charloom.cli.streams import print_message, print_summary
from charloom.errors import OutputError
from charloom.printable import shell_path
from charloom.settings import NetworkSettings, PrecisionChoice, Schedule, TextSettings, TrainingSettings
from charloom.text import uncompressed_name
from charloom.units import bits_from_nats, format_seconds, parse_seconds

if TYPE_CHECKING:
    from charloom.artifacts import Output
    from charloom.runs import RunSettings, TrainingResult
    from charloom.training import Event


_REPORT_SECONDS = 2.0
"""How much of a budget is reserved for a report."""


def _setting(settings: type, name: str, flag: str, kind: Any, text: str) -> Decorator:
    """Returns the option `flag` for the field `name`, with that field's default."""
    default = next(field.default for field in fields(settings) if field.name == name)
    return click.option(flag, name, type=kind, default=default, show_default=default is not None, help=text)


def _picked(settings: type, name: str, flag: str, kind: type, text: str) -> Decorator:
    """Returns the option `flag` for the field `name`, whose value charloom picks for runs with a budget."""
    default = next(field.default for field in fields(settings) if field.name == name)
    return click.option(flag, name, type=kind, help=f"{text}  [default: picked, or {default} without a budget]")


class _Duration(click.ParamType[float]):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return value if isinstance(value, float) else parse_seconds(value)
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


@click.command()
@click.argument("sources", nargs=-1, type=SourceName(), metavar="[SOURCE...]")
@click.option(
    "--out",
    type=FilePath(),
    metavar="MODEL",
    help="Model file, written at each improvement. charloom keeps an earlier model as NAME.previous.safetensors.  "
    "[default: SOURCE's name, with .safetensors]",
)
@click.option(
    "--force",
    is_flag=True,
    help="Replace an earlier model without keeping it, and train even if memory seems too small.",
)
@click.option(
    "--budget",
    type=_Duration(),
    metavar="TIME",
    help="Time that the whole command may take: 90s, 10m, 2h.  [default: 20s to 10m, by the length of the text]",
)
@_setting(TrainingSettings, "epochs", "--epochs", float, "Passes over the training text, instead of --budget.")
@_setting(TrainingSettings, "steps", "--steps", int, "Optimizer steps, instead of --budget.")
@_setting(NetworkSettings, "cell", "--cell", click.Choice(tuple(CELL_FACTS)), "Type of the recurrent layers.")
@_picked(NetworkSettings, "hidden", "--hidden", int, "Units per layer.")
@_setting(NetworkSettings, "layers", "--layers", int, "Number of recurrent layers.")
@_setting(NetworkSettings, "embedding", "--embedding", int, "Size of the character embedding.")
@_setting(
    TrainingSettings, "batch_size", "--batch-size", int, "Rows per batch; each row is a contiguous stream of the text."
)
@_setting(
    TrainingSettings, "sequence_length", "--sequence-length", int, "Characters per row in one step (truncated BPTT)."
)
@_picked(TrainingSettings, "dropout", "--dropout", float, "Fraction of each layer's outputs to drop.")
@_picked(TrainingSettings, "learning_rate", "--learning-rate", float, "Peak learning rate of the schedule.")
@_picked(
    TrainingSettings, "weight_dropout", "--weight-dropout", float, "Fraction of the recurrent weights to drop per step."
)
@_picked(TrainingSettings, "weight_decay", "--weight-decay", float, "Decoupled weight decay, as in AdamW.")
@_setting(
    TrainingSettings,
    "schedule",
    "--schedule",
    click.Choice(get_args(Schedule)),
    "Learning-rate schedule: constant, or falling to zero.",
)
@_setting(
    TrainingSettings,
    "warmup_ratio",
    "--warmup-ratio",
    float,
    "Fraction of the run during which the learning rate rises from zero.",
)
@_setting(
    TrainingSettings,
    "precision",
    "--precision",
    click.Choice(get_args(PrecisionChoice)),
    "Precision of the factors of matrix products.",
)
@_setting(TrainingSettings, "clip_norm", "--clip-norm", float, "Maximum global norm of the gradients.")
@click.option(
    "--state-reset-probability",
    "state_reset_probability",
    type=float,
    help="Probability of zeroing a row's state before a step.  "
    f"[default: {TrainingSettings.state_reset_probability}; records always start from zero]",
)
@_setting(
    TrainingSettings,
    "validation",
    "--validation",
    float,
    "Held-out part: a fraction below 1, or a number of characters (from the end) or records (drawn by the seed).  "
    "[default: 0.1, at most 500,000 characters]",
)
@_setting(TrainingSettings, "patience", "--patience", int, "Evaluations without improvement before early stopping.")
@click.option("--lowercase", is_flag=True, help="Convert the text to lower case.")
@click.option("--bytes", "as_bytes", is_flag=True, help="Model raw bytes instead of characters.")
@_setting(TextSettings, "encoding", "--encoding", str, "Encoding of the text.")
@click.option("--records", is_flag=True, help="Treat each line as a separate text: names, molecules, log lines.")
@click.option(
    "--delimiter",
    metavar="TEXT",
    help=r"Text between records, if that is not the end of a line; \n and \t work.",
)
@_setting(
    TextSettings,
    "min_count",
    "--min-count",
    int,
    "Replace characters that occur less often with one unknown character.",
)
@_setting(TrainingSettings, "seed", "--seed", int, "Random seed of the initial weights, dropout and held-out records.")
@click.option(
    "--run",
    type=FolderPath(),
    metavar="DIR",
    help="Folder for checkpoints and metrics. Resume from it with --resume.",
)
@click.option(
    "--resume",
    type=FolderPath(),
    metavar="DIR",
    help="Resume the run in DIR with its settings. Give SOURCE or --out if the text or the model has moved.",
)
@click.option(
    "--repeat",
    type=FilePath(),
    metavar="MODEL",
    help="Train again exactly as MODEL was trained, on the same text.",
)
@click.option(
    "--cache",
    type=FolderPath(),
    metavar="DIR",
    help="Folder for the encoded text.  [default: the user's cache, for texts of 100 MB and more]",
)
@click.option("--report", is_flag=True, help="Write an HTML page about the model next to it.")
@click.option("--tensorboard", is_flag=True, help="Write TensorBoard event files into the run folder.")
@threads_option
@json_option
@click.pass_context
def train(
    context: click.Context,
    /,
    sources: tuple[str, ...],
    out: Path | None,
    force: bool,
    run: Path | None,
    resume: Path | None,
    repeat: Path | None,
    cache: Path | None,
    report: bool,
    tensorboard: bool,
    lowercase: bool,
    as_bytes: bool,
    encoding: str,
    records: bool,
    delimiter: str | None,
    min_count: int,
    threads: int | None,
    as_json: bool,
    **values: Any,
) -> int:
    """Train a model on your text within a time budget.

    SOURCE is a file (also .gz, .xz, .zst), a folder, a glob pattern, - for standard input, or a name from
    `charloom corpora`.

    charloom holds out the end of the text and keeps the model that is best on it. Ctrl-C stops and keeps that model.
    With --run you can resume later, even after a crash. A resumed run set in epochs or steps gives the same model as an
    uninterrupted one; a run with a budget spends what is left of it.

    \b
    charloom train book.txt
    charloom train book.txt --budget 10m
    charloom train tinyshakespeare --out play.safetensors --epochs 4
    charloom train notes/ "essays/*.md" --out mine.safetensors --hidden 512 --dropout 0.3
    charloom train names.txt --records
    charloom train book.txt --epochs 200 --patience 5 --run book-run
    charloom train --resume book-run
    charloom train book.txt --repeat book.safetensors --out again.safetensors
    """
    if resume is None and not sources:
        raise click.UsageError("Missing argument 'SOURCE...'.", context)
    if resume is not None and run is not None:
        raise click.UsageError("--run starts a run and --resume continues one: give only one of them", context)
    if resume is not None and repeat is not None:
        raise click.UsageError("--resume and --repeat exclude each other: give only one of them", context)
    if tensorboard and resume is None and run is None:
        raise click.UsageError("--tensorboard writes into a run's folder: give --run as well", context)
    text = TextSettings(
        units="bytes" if as_bytes else "chars",
        lowercase=lowercase,
        encoding=encoding,
        delimiter=_unescaped(delimiter) if delimiter is not None else "\n" if records else None,
        min_count=min_count,
    )
    network = NetworkSettings(**_fields_of(NetworkSettings, values))
    training = TrainingSettings(**_fields_of(TrainingSettings, values))
    given = frozenset(name for name, value in values.items() if value is not None)

    set_threads(threads)

    from charloom.cli.terminal import PhaseTimer, TrainingDisplay
    from charloom.runs import RunSettings, run_training
    from charloom.training import Event, Progress, follow

    settings = RunSettings(
        sources=sources,
        out=out or (_default_out(sources[0]) if sources else None),
        text=text,
        network=network,
        training=training,
        folder=run,
        cache=cache,
        samples=True,
        given=given,
        report=report,
        out_is_default=out is None,
        force=force,
    )
    if resume is not None:
        settings = resumed_settings(context, settings, resume)
    if repeat is not None:
        settings = repeated_settings(context, settings, repeat)
    folder = settings.folder
    plots = folder / "tensorboard" if tensorboard and folder is not None else None
    timer = PhaseTimer()
    with (
        TrainingDisplay() as display,
        Interrupt(display.print, _closing_action(folder), timer.seconds_left) as interrupt,
        _plotting(plots) as plot,
    ):

        def on_event(event: Event) -> None:
            timer.follow(event)
            if isinstance(event, Progress):
                interrupt.armed = True  # from here on there is a model to keep
            display.show(event)
            try:
                plot(event)
            except OutputError as error:
                display.print(f"{error} charloom stops plotting; training continues")

        reserved = _REPORT_SECONDS if report else 0.0  # a budget includes the report
        run_events = run_training(settings, lambda: bool(interrupt.signal_number), context.obj, reserved)
        result = follow(run_events, on_event)
    seconds = time.monotonic() - context.obj
    assert result.out is not None  # the command line always names one
    if result.page is not None:
        _write_report(settings, result, result.out.name, result.page)
    out = result.out
    if result.model.training["is_repeatable"]:
        sources_text = " ".join("-" if source == "-" else shell_path(source) for source in settings.sources)
        print_message(
            f"To train it again: charloom train {sources_text} --repeat {shell_path(out)} --out NEW.safetensors"
        )
    summary = [json.dumps(_report(out, result, seconds))] if as_json else _summary(out, result, seconds)
    print_summary(summary, may_be_closed=not as_json)
    if interrupt.signal_number:
        if folder is not None:
            print_message(f"Resume with: charloom train --resume {shell_path(folder)}")
        return interrupt.status
    return FAILURE if result.stopped.reason == "diverged" else 0


def _closing_action(folder: Path | None) -> str:
    """Says what the command does after a signal."""
    return "saving the best model" if folder is None else "saving a checkpoint and the best model"


def _write_report(settings: "RunSettings", result: "TrainingResult", name: str, page: "Output") -> None:
    """Writes the report next to the model, with a section on the training text if that can be read again."""
    from charloom.cli.report import write_report
    from charloom.runs.token_cache import LARGE_TEXT_BYTES
    from charloom.text import find_sources, read_corpus

    corpus, why_not = None, "it came from a pipe, which can be read only once"
    if not any(source == "-" or Path(source).is_fifo() for source in settings.sources):
        sources, why_not = find_sources(settings.sources, settings.text), "it is too large"
        if sources.estimated_size < LARGE_TEXT_BYTES:
            corpus = read_corpus(sources, settings.text)
    write_report(result.model, name, page, corpus, why_not)


@contextmanager
def _plotting(folder: Path | None) -> "Iterator[Callable[[Event], None]]":
    if folder is None:
        yield lambda event: None
        return
    from charloom.runs import TensorBoardWriter

    with TensorBoardWriter(folder) as writer:
        yield writer.add


def _fields_of(settings: type, values: dict[str, Any]) -> dict[str, Any]:
    """Returns the `values` that are fields of `settings` and were given."""
    return {field.name: values[field.name] for field in fields(settings) if values.get(field.name) is not None}


def _unescaped(delimiter: str) -> str:
    return delimiter.replace("\\n", "\n").replace("\\t", "\t").replace("\\r", "\r")


def _default_out(source: str) -> Path:
    if source == "-" or (not os.path.lexists(source) and any(character in source for character in "*?[")):
        return Path("model.safetensors")
    return Path(f"{Path(uncompressed_name(os.path.abspath(source))).stem}.safetensors")


def _report(out: Path, result: "TrainingResult", seconds: float) -> dict[str, Any]:
    model, stopped = result.model, result.stopped
    return {
        "model": str(out),
        "parameters": model.network.parameters,
        "vocab_size": model.vocabulary.size,
        "train_chars": result.train_chars,
        "validation_chars": result.validation_chars,
        "epochs": stopped.epoch,
        "steps": stopped.step,
        "seconds": seconds,
        "chars_per_second": stopped.chars_per_second,
        "train_nats_per_char": result.train_nats_per_char,
        "validation_nats_per_char": result.validation_nats_per_char,
        "validation_bits_per_char": bits_from_nats(result.validation_nats_per_char),
        "stopped": stopped.reason,
    }


def _summary(out: Path, result: "TrainingResult", seconds: float) -> list[str]:
    nats, speed = result.validation_nats_per_char, result.stopped.chars_per_second
    return [
        f"{out}: {bits_from_nats(nats):.3f} bits ({nats:.4f} nats) per character on {result.validation_chars:,} "
        f"held-out characters, after {format_seconds(seconds)}"
        + (f" (training: {speed:,.0f} characters per second)" if speed else ""),
        f"Next: charloom generate {shell_path(out)}",
    ]
