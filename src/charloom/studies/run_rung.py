"""One rung, from its declaration to what came of it: the same code trains them all."""

import math
import statistics
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from charloom.artifacts import make_folder
from charloom.data import TokenStream
from charloom.errors import ModelFileError
from charloom.inference import Score, score_blocks
from charloom.models import Network, SequenceModel
from charloom.runs.checkpoint import CheckpointRule, read_checkpoint, write_checkpoint
from charloom.studies.demonstrations import Trained
from charloom.studies.description import framing_facts, layer_table, preview
from charloom.studies.framing import ReadingLanes
from charloom.studies.rung import Rung
from charloom.text import Vocabulary
from charloom.training import (
    EpochEnd,
    Event,
    Notice,
    Saved,
    Stopped,
    Trainer,
    TrainingState,
    UpdateRule,
    initial_state,
    root_key,
    train_phases,
)
from charloom.units import finite_or_none

MODEL_FILE = "model.safetensors"

_RESUMING = CheckpointRule(template="epoch-{epoch:04d}")
_RESUMING_KEPT = 2

Figures = dict[str, Any]


@dataclass(frozen=True)
class Prepared:
    """A rung's text, read and cut.

    Attributes:
        text: as it was read.
        vocabulary: of the text.
        train: what is trained on.
        held_out: what is not; None where all is trained on, as published.
    """

    text: str | bytes
    vocabulary: Vocabulary
    train: TokenStream
    held_out: TokenStream | None

    @classmethod
    def of(cls, rung: Rung) -> "Prepared":
        """Returns the text of `rung`.

        Raises:
            SourceError: the text cannot be had.
        """
        text = rung.text.read()
        vocabulary = Vocabulary.of_texts([text]) if isinstance(text, str) else Vocabulary.of_bytes()
        text = text[: rung.text.first]
        stream = TokenStream.of_documents([vocabulary.encode(text)])
        held_out = rung.text.held_out_characters(len(stream))
        if not held_out:
            return cls(text, vocabulary, stream, None)
        return cls(text, vocabulary, *stream.split(len(stream) - held_out))


def update_rule(rung: Rung) -> UpdateRule:
    """Returns what an update of `rung` does; the tutorials neither drop out nor clip."""
    return UpdateRule(epsilon=rung.epsilon, last_only=rung.framing.last_only)


def warm_score(state: TrainingState, rung: Rung, stream: TokenStream, seed: int) -> Score:
    """Returns the score on `stream` read on from the state that training left, where there is one; else from zeros."""
    if isinstance(rung.framing, ReadingLanes):
        return score_blocks(state.network, rung.framing.warm_scoring(stream), carry=state.carry)
    return score(state.network, rung, stream, seed)


def score(network: SequenceModel, rung: Rung, stream: TokenStream, seed: int) -> Score:
    """Returns the score of `network` on `stream`, framed as the rung frames it; `seed` is that of the run."""
    return score_blocks(network, rung.framing.scoring(stream, seed), last_only=rung.framing.last_only)


def run_rung(
    rung: Rung,
    published: Mapping[str, Any],
    seed: int,
    folder: Path,
    identity: Mapping[str, Any],
    should_stop: Callable[[], bool] = lambda: False,
) -> Generator[Event, None, Figures | None]:
    """Yields the run's events and returns its figures, JSON values; None where `should_stop` ended it.

    Args:
        rung: the experiment, already cut.
        published: what was published of it.
        seed: of weights and of the order of what is read.
        folder: for checkpoints and the model. A checkpoint in it with the same identity is gone on from.
        identity: JSON values that tell this run's checkpoints from another's.
        should_stop: is asked between dispatches.

    Raises:
        CharloomError: the text cannot be had, or a file cannot be written.
    """
    prepared = Prepared.of(rung)
    init_key, training_key = jax.random.split(root_key(seed))
    model = rung.initial(prepared.vocabulary, init_key)
    framing, rule = rung.framing, update_rule(rung)
    epochs: list[Figures] = []
    state = initial_state(model, framing.lanes, rule)
    found, notices = _newest_checkpoint(folder, state, identity)
    yield from map(Notice, notices)
    if found is not None:
        state, epochs = found
        yield Notice(f"going on after epoch {len(epochs)}")
    updates_an_epoch = framing.updates_an_epoch(prepared.train)
    trainer = Trainer(state, framing.producer(prepared.train, seed), rule, training_key, len(epochs) * updates_an_epoch)
    held_out = prepared.held_out
    training = train_phases(
        trainer,
        rung.phases,
        updates_an_epoch,
        held_out=None if held_out is None else lambda state: warm_score(state, rung, held_out, seed),
        should_stop=should_stop,
    )
    for event in training:
        yield event
        if isinstance(event, EpochEnd):
            epochs.append(_epoch_figures(event))
            yield from _keep(rung, folder, trainer, epochs, identity)
        elif isinstance(event, Stopped) and event.reason == "interrupted":
            return None
    trained = Trained(
        trainer.state.network,
        prepared.vocabulary,
        rung,
        published,
        seed,
        carry=trainer.state.carry,
        kept=lambda: _kept_states(rung, folder, epochs, like=trainer.state),
    )
    if isinstance(trained.model, Network):
        make_folder(folder)
        trained.text_model.save(folder / MODEL_FILE)
        yield Saved(folder / MODEL_FILE)
    figures = _figures(rung, prepared, model, trained, trainer.state, epochs, seed)
    _remove_resuming(folder)
    return figures


def describe(rung: Rung, prepared: Prepared, model: SequenceModel) -> Figures:
    """Returns what is known of a rung before it was trained."""
    return {
        "summary": rung.summary,
        "lesson": rung.lesson,
        "notes": list(rung.notes),
        "parameters": model.parameters,
        "layers": layer_table(model, rung.framing),
        "framing": framing_facts(rung.framing, prepared.train),
        "preview": preview(rung.framing, prepared.vocabulary, prepared.text, prepared.train),
        "train_characters": len(prepared.train),
        "held_out_characters": len(prepared.held_out) if prepared.held_out else 0,
        "vocab_size": prepared.vocabulary.size,
        "phases": [{"learning_rate": phase.learning_rate, "epochs": phase.epochs} for phase in rung.phases],
    }


def _figures(
    rung: Rung,
    prepared: Prepared,
    model: SequenceModel,
    trained: Trained,
    state: TrainingState,
    epochs: list[Figures],
    seed: int,
) -> Figures:
    """Returns all that came of a run. A loss that is no number is None, as JSON has none."""
    seconds = [epoch["seconds"] for epoch in epochs]
    figures = describe(rung, prepared, model) | {
        "losses": [finite_or_none(epoch["loss"]) for epoch in epochs],
        "accuracies": [epoch["accuracy"] for epoch in epochs],
        "accuracy": epochs[-1]["accuracy"],
        # The first epoch has compilation among its seconds.
        "seconds_per_epoch": statistics.median(seconds[1:] or seconds),
        "training_seconds": sum(seconds),
        "seed": seed,
    }
    if prepared.held_out is not None:
        figures["held_out_losses"] = [finite_or_none(epoch["val_loss"]) for epoch in epochs]
        figures["held_out_accuracies"] = [epoch["val_accuracy"] for epoch in epochs]
        # As much of the training part as is held out, scored by the final weights.
        same_size = prepared.train.split(len(prepared.held_out))[0]
        scores = {
            "train_score": warm_score(state, rung, same_size, seed),
            "held_out_score": warm_score(state, rung, prepared.held_out, seed),
        }
        if isinstance(rung.framing, ReadingLanes):
            scores["held_out_cold_score"] = score(state.network, rung, prepared.held_out, seed)
        for name, total in scores.items():
            figures[name] = {"nats": finite_or_none(total.nats_per_char), "accuracy": total.accuracy}
    if all(loss is not None for loss in figures["losses"]):
        figures["samples"] = [sample for show in rung.demonstrations for sample in show(trained)]
    else:
        figures["samples"] = []
    return figures


def _epoch_figures(event: EpochEnd) -> Figures:
    figures: Figures = {
        "epoch": event.epoch,
        "loss": event.loss_nats,
        "accuracy": event.accuracy,
        "seconds": event.seconds,
    }
    if event.held_out is not None:
        figures |= {"val_loss": event.held_out.nats_per_char, "val_accuracy": event.held_out.accuracy}
    return figures


def _keep(
    rung: Rung, folder: Path, trainer: Trainer, epochs: list[Figures], identity: Mapping[str, Any]
) -> Iterator[Event]:
    """Writes the epoch's checkpoints, and removes those that only served resuming and are no longer needed."""
    make_folder(folder)
    progress = {"identity": dict(identity), "epochs": [_json(epoch) for epoch in epochs]}
    for rule in (_RESUMING, *rung.checkpoints):
        if rule.keeps(epochs):
            path = folder / rule.name(epochs[-1])
            write_checkpoint(path, trainer.state, progress)
            yield Saved(path)
    for old in _resuming_files(folder)[:-_RESUMING_KEPT]:
        old.unlink()


def _json(epoch: Figures) -> Figures:
    return {name: finite_or_none(value) for name, value in epoch.items()}


def _resuming_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("epoch-*.safetensors"))


def _remove_resuming(folder: Path) -> None:
    for path in _resuming_files(folder):
        path.unlink()


def _newest_checkpoint(
    folder: Path, like: TrainingState, identity: Mapping[str, Any]
) -> tuple[tuple[TrainingState, list[Figures]] | None, list[str]]:
    """Returns the state and the epochs of the newest good checkpoint in `folder`, and a line for each damaged one."""
    notices = []
    paths = [path for path in folder.glob("*.safetensors") if path.name != MODEL_FILE]
    for path in sorted(paths, key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True):
        try:
            state, progress = read_checkpoint(path, like)
        except ModelFileError as error:
            notices.append(f"{error} The checkpoint before it is used")
            continue
        if progress.get("identity") == dict(identity):
            epochs = [
                {name: math.nan if value is None else value for name, value in epoch.items()}
                for epoch in progress["epochs"]
            ]
            return (state, epochs), notices
    return None, notices


def _kept_states(
    rung: Rung, folder: Path, epochs: list[Figures], like: TrainingState
) -> Iterator[tuple[str, TrainingState]]:
    """Yields the states of the rung's own checkpoints that are the best of something."""
    for rule in rung.checkpoints:
        if rule.monitor is not None:
            path = folder / rule.name(epochs[-1])
            kept, _ = read_checkpoint(path, like)
            yield path.stem, kept
