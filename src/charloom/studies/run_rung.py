"""One rung, from its declaration to what came of it: the same code trains them all."""

import statistics
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from charloom.artifacts import Output, make_folder, remove_unfinished
from charloom.data import TokenStream
from charloom.inference import MeanScore, score_blocks
from charloom.model import MODEL
from charloom.models import Network, SequenceModel
from charloom.runs.checkpoint import CHECKPOINT
from charloom.studies.demonstrations import Trained
from charloom.studies.description import framing_facts, layer_table, preview
from charloom.studies.framing import ReadingLanes
from charloom.studies.resuming import MODEL_FILE, Epoch, best_states, newest_checkpoint, write_checkpoints
from charloom.studies.rung import Rung
from charloom.studies.study_data import StudyData
from charloom.training import (
    EpochEnd,
    Event,
    Notice,
    Saved,
    Stopped,
    Trainer,
    TrainingState,
    UpdateRule,
    has_diverged,
    initial_state,
    root_key,
    train_phases,
)
from charloom.units import finite_or_none

Figures = dict[str, Any]


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
        folder: for checkpoints and the model. The furthest checkpoint in it with the same identity is gone on from;
            to go on from an earlier one, remove those after it.
        identity: JSON values that tell this run's checkpoints from another's.
        should_stop: is asked between dispatches.

    Raises:
        CharloomError: the text cannot be had, or a file cannot be written.
    """
    data = StudyData.of(rung)
    make_folder(folder)
    remove_unfinished(folder, CHECKPOINT.owner)
    output = Output(folder / MODEL_FILE, MODEL)  # before anything is trained
    state = initial_state(
        rung.initial(data.vocabulary, np.random.default_rng(seed)), rung.framing.lanes, update_rule(rung)
    )
    found, damaged = newest_checkpoint(folder, state, identity, rung.epochs)
    yield from map(Notice, damaged)
    epochs: list[Epoch] = []
    if found is not None:
        state, epochs = found
        yield Notice(f"going on after epoch {len(epochs)}")
    # A run that has diverged is over, also when it is gone on with.
    if not epochs or not has_diverged(epochs[-1]["loss"]):
        made = len(epochs) * rung.framing.updates_an_epoch(data.train)
        producer = rung.framing.producer(data.train, seed)
        trainer = Trainer(state, producer, update_rule(rung), root_key(seed), made)
        finished = yield from _epochs(rung, data, seed, trainer, folder, epochs, identity, should_stop)
        if not finished:
            return None
        state = trainer.state
    bests, damaged = best_states(folder, rung.checkpoints, epochs, state)
    yield from map(Notice, damaged)
    trained = Trained(
        state.network,
        data.vocabulary,
        rung,
        published=published,
        trained_on=data.trained_on,
        seed=seed,
        carry=state.carry,
        kept=bests,
    )
    if isinstance(trained.model, Network):
        output.write(trained.text_model.to_bytes())
        yield Saved(output.path)
        if (kept := output.settle()) is not None:
            yield Notice(f"{output.path}: the earlier model that stood there is kept as {kept}")
    return describe(rung, data, trained.model, seed) | _outcome(rung, data, trained, state, epochs)


def update_rule(rung: Rung) -> UpdateRule:
    """Returns what an update of `rung` does; the tutorials neither drop out nor clip."""
    return UpdateRule(epsilon=rung.epsilon, last_only=rung.framing.last_only)


def _epochs(
    rung: Rung,
    data: StudyData,
    seed: int,
    trainer: Trainer,
    folder: Path,
    epochs: list[Epoch],
    identity: Mapping[str, Any],
    should_stop: Callable[[], bool],
) -> Generator[Event, None, bool]:
    """Yields the events of the epochs that are left, adds to `epochs`, and returns whether they came to their end."""
    held_out = data.held_out
    training = train_phases(
        trainer,
        rung.phases,
        rung.framing.updates_an_epoch(data.train),
        held_out=None if held_out is None else lambda state: warm_score(state, rung, held_out, seed),
        should_stop=should_stop,
    )
    for event in training:
        yield event
        if isinstance(event, EpochEnd):
            epochs.append(_epoch_of(event))
            for path in write_checkpoints(folder, rung.checkpoints, trainer.state, epochs, identity):
                yield Saved(path)
        elif isinstance(event, Stopped) and event.reason == "interrupted":
            return False
    return True


def _epoch_of(event: EpochEnd) -> Epoch:
    epoch: Epoch = {
        "epoch": event.epoch,
        "loss": event.loss_nats,
        "accuracy": event.accuracy,
        "seconds": event.seconds,
    }
    if event.held_out is not None:
        epoch |= {"val_loss": event.held_out.nats_per_char, "val_accuracy": event.held_out.accuracy}
    return epoch


def describe(rung: Rung, data: StudyData, model: SequenceModel, seed: int) -> Figures:
    """Returns what is known of a rung before it is trained."""
    return {
        "summary": rung.summary,
        "lesson": rung.lesson,
        "notes": list(rung.notes),
        "parameters": model.parameters,
        "layers": layer_table(model, rung.framing),
        "framing": framing_facts(rung.framing, data.train),
        "preview": preview(rung.framing, data, seed),
        "train_characters": len(data.train),
        "held_out_characters": len(data.held_out) if data.held_out else 0,
        "vocab_size": data.vocabulary.size,
        "phases": [{"learning_rate": phase.learning_rate, "epochs": phase.epochs} for phase in rung.phases],
        "seed": seed,
    }


def _outcome(rung: Rung, data: StudyData, trained: Trained, state: TrainingState, epochs: Sequence[Epoch]) -> Figures:
    """Returns what came of a run. A loss that is no number is None, as JSON has none."""
    seconds = [epoch["seconds"] for epoch in epochs]
    figures: Figures = {
        "losses": [finite_or_none(epoch["loss"]) for epoch in epochs],
        "accuracies": [epoch["accuracy"] for epoch in epochs],
        "accuracy": epochs[-1]["accuracy"],
        # The first epoch has compilation among its seconds.
        "seconds_per_epoch": statistics.median(seconds[1:] or seconds),
        "training_seconds": sum(seconds),
        "samples": [],
    }
    if figures["losses"][-1] is not None:
        figures["samples"] = [sample for show in rung.demonstrations for sample in show(trained)]
    if data.held_out is not None:
        figures["held_out_losses"] = [finite_or_none(epoch["val_loss"]) for epoch in epochs]
        figures["held_out_accuracies"] = [epoch["val_accuracy"] for epoch in epochs]
        figures |= _final_scores(rung, data.train, data.held_out, state, trained.seed)
    return figures


def _final_scores(rung: Rung, train: TokenStream, held_out: TokenStream, state: TrainingState, seed: int) -> Figures:
    """Returns the final weights' scores on what is held out, and on as much of what was trained on."""
    scores = {
        "train_score": warm_score(state, rung, train.split(len(held_out))[0], seed),
        "held_out_score": warm_score(state, rung, held_out, seed),
    }
    if isinstance(rung.framing, ReadingLanes):
        scores["held_out_cold_score"] = score(state.network, rung, held_out, seed)
    return {name: {"nats": finite_or_none(one.nats_per_char), "accuracy": one.accuracy} for name, one in scores.items()}


def warm_score(state: TrainingState, rung: Rung, stream: TokenStream, seed: int) -> MeanScore:
    """Returns the score on `stream` read on from the state that training left, where there is one; else from zeros."""
    if isinstance(rung.framing, ReadingLanes):
        return score_blocks(state.network, rung.framing.warm_scoring(stream), carry=state.carry)
    return score(state.network, rung, stream, seed)


def score(network: SequenceModel, rung: Rung, stream: TokenStream, seed: int) -> MeanScore:
    """Returns the score of `network` on `stream`, framed as the rung frames it; `seed` is that of the run."""
    return score_blocks(network, rung.framing.scoring(stream, seed), last_only=rung.framing.last_only)
