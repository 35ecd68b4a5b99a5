"""What a run keeps while it goes on: the best model, its history, checkpoints and metrics."""

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, replace
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from charloom.artifacts import Output
from charloom.errors import OutputError
from charloom.model import TextModel
from charloom.models import Network, SequenceModel
from charloom.runs.checkpoint_progress import BestEvaluation, CheckpointProgress, Evaluated, Sampled
from charloom.runs.run_folder import RunFolder
from charloom.runs.run_settings import RunSettings
from charloom.runs.this_machine import machine_facts
from charloom.settings import SamplingSettings, TrainingSettings
from charloom.text import Vocabulary
from charloom.training import (
    Budget,
    Evaluation,
    Event,
    LoopState,
    Notice,
    Progress,
    Sample,
    Saved,
    StepPlan,
    Stopped,
    TrainingLoop,
    TrainingState,
)
from charloom.units import bits_from_nats, finite_or_none, format_seconds

_SAMPLE_LENGTH = 160
_SAMPLE_RECORDS = 5
_SAMPLE_SECONDS = 15.0
_WORTH_TELLING_SECONDS = 3.0
_SAMPLES_APART = 1.5
"""Each sample that the model file has comes after so many times the steps of the one before it."""


class CheckpointTrees(NamedTuple):
    """The arrays of a checkpoint.

    Attributes:
        training: as of `LoopState`.
        good: as of `LoopState`.
        best: the best weights so far; any before the first evaluation.
    """

    training: TrainingState
    good: TrainingState
    best: SequenceModel


class RunRecorder:
    """Remembers the best evaluation, and makes the model of it.

    Attributes:
        best: the best evaluation; None before the first.

    Args:
        settings: what was asked for.
        fitted: the same, made to fit the text.
        trained_on: the text.
        vocabulary: of the text.
        folder: for checkpoints and metrics.
        clock: how much of a budget is spent.
        run: the digest that stands in each checkpoint.
    """

    def __init__(
        self,
        settings: RunSettings,
        fitted: TrainingSettings,
        trained_on: Mapping[str, str | int],
        vocabulary: Vocabulary,
        output: Output | None,
        folder: RunFolder | None,
        clock: Budget,
        run: str = "",
    ):
        self.best: Evaluation | None = None
        self._settings = settings
        self._vocabulary = vocabulary
        self._trained_on = dict(trained_on)
        self._training = fitted
        self._step_plan: StepPlan | None = None  # before training
        self._machine = machine_facts()
        self._clock = clock
        self._history: list[Evaluated] = []
        self._samples: list[Sampled] = []
        self._output = output
        self._folder = folder
        self._run = run

    def model(self, outcome: Mapping[str, float] = MappingProxyType({})) -> TextModel:
        """Returns the best model so far, with what is known of its training and `outcome`."""
        assert self.best is not None  # callers have seen an improvement
        return TextModel(
            network=self.best.network,
            vocabulary=self._vocabulary,
            settings=self._settings.network,
            text=self._settings.text,
            trained_on=self._trained_on,
            training=asdict(self.repeating)
            | {
                "machine": self._machine,
                "kept_step": self.best.step,
                "history": msgspec.to_builtins(self._history),
                "samples": msgspec.to_builtins(self._samples),
            }
            | dict(outcome),
        )

    @property
    def repeating(self) -> TrainingSettings:
        """The settings that train the same once more, however long it was to go on."""
        assert self._step_plan is not None  # training has begun
        plans = self._step_plan.plans if len(self._step_plan.plans) > 1 else ()
        return replace(self._training, epochs=None, budget=None, steps=self._step_plan.steps, step_plan=plans)

    def start_from(self, trees: CheckpointTrees, progress: CheckpointProgress) -> LoopState:
        """Takes over what a checkpoint remembers, and returns where its loop goes on."""
        self._history = list(progress.history)
        self._samples = list(progress.samples)
        if progress.best is not None:
            assert isinstance(trees.best, Network)  # as it was written
            self.best = Evaluation(**msgspec.to_builtins(progress.best), improved=True, network=trees.best)
        self._clock.add_spent(progress.spent)
        return LoopState(trees.training, trees.good, progress.loop)

    def follow(
        self,
        loop: TrainingLoop,
        should_stop: Callable[[], bool],
        closing_seconds: Callable[[Network], float] = lambda network: 0.0,
    ) -> Generator[Event, None, Stopped]:
        """Passes the loop's events on; saves what improves, writes checkpoints, and a sample now and then.

        Args:
            loop: is followed to its end.
            should_stop: as of `run_training`.
            closing_seconds: returns about how long a network's scores take that end a run.
        """
        last_sample = time.monotonic()
        for event in loop.events(should_stop):
            self._step_plan = loop.state.progress.step_plan
            yield event
            if isinstance(event, Progress):
                # What is evaluated after a wish to stop is no part of the run that is resumed later.
                if self._folder is not None and (event.stopping or self._folder.is_checkpoint_due):
                    yield self._checkpoint(self._folder, loop.state)
                if event.stopping:
                    network = loop.state.training.network
                    assert isinstance(network, Network)
                    if (seconds := closing_seconds(network)) > _WORTH_TELLING_SECONDS:
                        yield Notice(f"the held-out text is scored, which takes about {format_seconds(seconds)}")
            elif isinstance(event, Evaluation):
                yield from self._evaluated(event)
                if self.best and self._settings.samples and time.monotonic() - last_sample > _SAMPLE_SECONDS:
                    yield Sample(self._sample(self.model()))
                    last_sample = time.monotonic()
            elif isinstance(event, Stopped):
                if self._folder is not None and event.reason != "interrupted":
                    yield self._checkpoint(self._folder, loop.state)
                return event
        raise AssertionError("training ends with Stopped")

    def warm_up(self, network: Network) -> None:
        """Compiles what samples take: the first evaluation would seem to take as long as that, and all after it."""
        text = self._settings.text
        self._sample(TextModel(network, self._vocabulary, self._settings.network, text, self._trained_on))

    def _sample(self, model: TextModel) -> str:
        prompted, seed = model.prompted(), self._settings.training.seed
        count = 1 if self._settings.text.delimiter is None else _SAMPLE_RECORDS
        writings = prompted.stream_many(_SAMPLE_LENGTH, SamplingSettings(), seed=seed, stream_indexes=range(count))
        return "\n".join("".join(writing) for writing in writings)

    def _evaluated(self, evaluation: Evaluation) -> Generator[Event, None, None]:
        figures = Evaluated(
            step=evaluation.step,
            train_nats_per_char=finite_or_none(evaluation.train_nats_per_char),
            validation_nats_per_char=finite_or_none(evaluation.validation_nats_per_char),
        )
        self._history.append(figures)
        if evaluation.improved:
            self.best = evaluation
            if not self._samples or evaluation.step >= _SAMPLES_APART * self._samples[-1].step:
                self._samples.append(Sampled(step=evaluation.step, text=self._sample(self.model())))
            if self._output is not None:
                try:
                    with self._clock.waiting():
                        self._output.write(self.model().to_bytes())
                    yield Saved(self._output.path)
                except OutputError as error:  # there may be space again at the next improvement
                    yield Notice(f"{error} Training goes on")
        if self._folder is not None:
            metrics = {
                "epoch": evaluation.epoch,
                "validation_bits_per_char": bits_from_nats(evaluation.validation_nats_per_char),
                "improved": evaluation.improved,
            }
            try:
                self._folder.metrics.add(msgspec.to_builtins(figures) | metrics)
            except OutputError as error:
                yield Notice(f"{error} Training goes on")

    def _checkpoint(self, folder: RunFolder, state: LoopState) -> Event:
        best = self.best
        progress = CheckpointProgress(
            run=self._run,
            loop=state.progress,
            best=None
            if best is None
            else BestEvaluation(
                step=best.step,
                epoch=best.epoch,
                train_nats_per_char=best.train_nats_per_char,
                validation_nats_per_char=best.validation_nats_per_char,
            ),
            history=self._history,
            samples=self._samples,
            spent=self._clock.spent,
        )
        network = state.training.network if best is None else best.network
        trees = CheckpointTrees(state.training, state.good, network)
        try:
            with self._clock.waiting():
                return Saved(folder.write_checkpoint(trees, progress.as_json()))
        except OutputError as error:
            return Notice(f"{error} Training goes on; the checkpoints before are as they were")
