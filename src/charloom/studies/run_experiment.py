"""Runs one experiment, from its declaration to its figures; all experiments share this code."""

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
from charloom.studies.batching import ContiguousStreams
from charloom.studies.description import batching_summary, layer_table, preview
from charloom.studies.experiment import Experiment
from charloom.studies.resuming import MODEL_FILE, Epoch, best_states, newest_checkpoint, write_checkpoints
from charloom.studies.showcases import Trained
from charloom.studies.study_data import StudyData
from charloom.training import (
    EpochEnd,
    Event,
    Notice,
    Saved,
    StepRule,
    Stopped,
    Trainer,
    TrainingState,
    has_diverged,
    initial_state,
    root_key,
    train_phases,
)
from charloom.units import finite_or_none

Figures = dict[str, Any]


def run_experiment(
    experiment: Experiment,
    published: Mapping[str, Any],
    seed: int,
    folder: Path,
    identity: Mapping[str, Any],
    should_stop: Callable[[], bool] = lambda: False,
) -> Generator[Event, None, Figures | None]:
    """Yields the run's events and returns its figures as JSON values; None if `should_stop` ended the run.

    Args:
        experiment: the experiment, with the changes for the mode of the run.
        published: its published figures.
        seed: random seed of the weights and of the order of windows.
        folder: folder for checkpoints and the model. The run resumes from the latest checkpoint in it that has the
            same identity. To resume from an earlier one, remove those after it.
        identity: JSON values that distinguish the checkpoints of this run from those of others.
        should_stop: called between dispatches.

    Raises:
        CharloomError: the text is unavailable, or a file cannot be written.
    """
    data = StudyData.of(experiment)
    make_folder(folder)
    remove_unfinished(folder, CHECKPOINT.owner)
    output = Output(folder / MODEL_FILE, MODEL)  # fails before training if the file cannot be written
    state = initial_state(
        experiment.initial(data.vocabulary, np.random.default_rng(seed)),
        experiment.batching.batch_size,
        step_rule(experiment),
    )
    found, damaged = newest_checkpoint(folder, state, identity, experiment.epochs)
    yield from map(Notice, damaged)
    epochs: list[Epoch] = []
    if found is not None:
        state, epochs = found
        yield Notice(f"resuming after epoch {len(epochs)}")
    # A run that has diverged is over, and resuming does not change that.
    if not epochs or not has_diverged(epochs[-1]["loss"]):
        made = len(epochs) * experiment.batching.steps_per_epoch(data.train)
        producer = experiment.batching.producer(data.train, seed)
        trainer = Trainer(state, producer, step_rule(experiment), root_key(seed), made)
        finished = yield from _epochs(experiment, data, seed, trainer, folder, epochs, identity, should_stop)
        if not finished:
            return None
        state = trainer.state
    bests, damaged = best_states(folder, experiment.checkpoints, epochs, state)
    yield from map(Notice, damaged)
    trained = Trained(
        state.network,
        data.vocabulary,
        experiment,
        published=published,
        trained_on=data.trained_on,
        seed=seed,
        carry=state.carry,
        kept=bests,
    )
    if isinstance(trained.model, Network):
        output.write(trained.text_model.to_bytes())
        yield Saved(output.path)
        if (kept := output.finish()) is not None:
            yield Notice(f"{output.path}: the earlier model with this name is kept as {kept}")
    return describe(experiment, data, trained.model, seed) | _outcome(experiment, data, trained, state, epochs)


def step_rule(experiment: Experiment) -> StepRule:
    """Returns the step rule of `experiment`; the tutorials use neither dropout nor clipping."""
    return StepRule(epsilon=experiment.epsilon, last_only=experiment.batching.last_only)


def _epochs(
    experiment: Experiment,
    data: StudyData,
    seed: int,
    trainer: Trainer,
    folder: Path,
    epochs: list[Epoch],
    identity: Mapping[str, Any],
    should_stop: Callable[[], bool],
) -> Generator[Event, None, bool]:
    """Yields the events of the remaining epochs, appends to `epochs`, and returns whether training finished."""
    held_out = data.held_out
    training = train_phases(
        trainer,
        experiment.phases,
        experiment.batching.steps_per_epoch(data.train),
        held_out=None if held_out is None else lambda state: warm_score(state, experiment, held_out, seed),
        should_stop=should_stop,
    )
    for event in training:
        yield event
        if isinstance(event, EpochEnd):
            epochs.append(_epoch_of(event))
            for path in write_checkpoints(folder, experiment.checkpoints, trainer.state, epochs, identity):
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


def describe(experiment: Experiment, data: StudyData, model: SequenceModel, seed: int) -> Figures:
    """Returns the figures of an experiment that are known before training."""
    return {
        "summary": experiment.summary,
        "lesson": experiment.lesson,
        "notes": list(experiment.notes),
        "parameters": model.parameters,
        "layers": layer_table(model, experiment.batching),
        "batching": batching_summary(experiment.batching, data.train),
        "preview": preview(experiment.batching, data, seed),
        "train_characters": len(data.train),
        "held_out_characters": len(data.held_out) if data.held_out else 0,
        "vocab_size": data.vocabulary.size,
        "phases": [{"learning_rate": phase.learning_rate, "epochs": phase.epochs} for phase in experiment.phases],
        "seed": seed,
    }


def _outcome(
    experiment: Experiment, data: StudyData, trained: Trained, state: TrainingState, epochs: Sequence[Epoch]
) -> Figures:
    """Returns the figures of a finished run. A loss that is not finite is None, because JSON cannot hold it."""
    seconds = [epoch["seconds"] for epoch in epochs]
    figures: Figures = {
        "losses": [finite_or_none(epoch["loss"]) for epoch in epochs],
        "accuracies": [epoch["accuracy"] for epoch in epochs],
        "accuracy": epochs[-1]["accuracy"],
        # The first epoch includes compilation.
        "seconds_per_epoch": statistics.median(seconds[1:] or seconds),
        "training_seconds": sum(seconds),
        "samples": [],
    }
    if figures["losses"][-1] is not None:
        figures["samples"] = [sample for show in experiment.showcases for sample in show(trained)]
    if data.held_out is not None:
        figures["held_out_losses"] = [finite_or_none(epoch["val_loss"]) for epoch in epochs]
        figures["held_out_accuracies"] = [epoch["val_accuracy"] for epoch in epochs]
        figures |= _final_scores(experiment, data.train, data.held_out, state, trained.seed)
    return figures


def _final_scores(
    experiment: Experiment, train: TokenStream, held_out: TokenStream, state: TrainingState, seed: int
) -> Figures:
    """Returns the scores of the final weights on the held-out text, and on as much of the training text."""
    scores = {
        "train_score": warm_score(state, experiment, train.split(len(held_out))[0], seed),
        "held_out_score": warm_score(state, experiment, held_out, seed),
    }
    if isinstance(experiment.batching, ContiguousStreams):
        scores["held_out_cold_score"] = score(state.network, experiment, held_out, seed)
    return {name: {"nats": finite_or_none(one.nats_per_char), "accuracy": one.accuracy} for name, one in scores.items()}


def warm_score(state: TrainingState, experiment: Experiment, stream: TokenStream, seed: int) -> MeanScore:
    """Returns the score on `stream`, from the state after training if there is one, otherwise from zeros."""
    if isinstance(experiment.batching, ContiguousStreams):
        return score_blocks(state.network, experiment.batching.warm_scoring(stream), carry=state.carry)
    return score(state.network, experiment, stream, seed)


def score(network: SequenceModel, experiment: Experiment, stream: TokenStream, seed: int) -> MeanScore:
    """Returns the score of `network` on `stream`, cut as in the experiment; `seed` is that of the run."""
    return score_blocks(network, experiment.batching.scoring(stream, seed), last_only=experiment.batching.last_only)
