"""Records a run while it trains: the best model, its history, checkpoints and metrics."""

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
from charloom.runs.checkpoint_progress import BestEvaluation, CheckpointProgress, HistoryEntry, SampleEntry
from charloom.runs.run_folder import RunFolder
from charloom.runs.run_settings import RunSettings
from charloom.runs.this_machine import machine_info
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
from charloom.units import LONG_WAIT_SECONDS, bits_from_nats, finite_or_none, format_seconds

_SAMPLE_LENGTH = 160
_SAMPLE_RECORDS = 5
_SAMPLE_SECONDS = 15.0
_SAMPLE_STEP_RATIO = 1.5
"""Each sample in the model file comes after at least this many times the steps of the previous one."""


class CheckpointArrays(NamedTuple):
    """The arrays of a checkpoint.

    Attributes:
        training: as in `LoopState`.
        good: as in `LoopState`.
        best: the best weights so far; before the first evaluation the current ones.
    """

    training: TrainingState
    good: TrainingState
    best: SequenceModel


class RunRecorder:
    """Records the best evaluation, and builds the model from it.

    Attributes:
        best: the best evaluation; None before the first.

    Args:
        settings: the run's settings.
        fitted: the training settings, adjusted to the text.
        trained_on: the training text.
        vocabulary: the text's vocabulary.
        output: where to write the model; None keeps it in memory.
        folder: the folder for checkpoints and metrics; None for none.
        clock: the clock of the run's budget.
        run: the run's digest, which each checkpoint stores.
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
        self._machine = machine_info()
        self._clock = clock
        self._history: list[HistoryEntry] = []
        self._samples: list[SampleEntry] = []
        self._output = output
        self._folder = folder
        self._run = run

    def model(self, outcome: Mapping[str, float] = MappingProxyType({})) -> TextModel:
        """Returns the best model so far, with its training section and `outcome`."""
        assert self.best is not None  # callers check that there was an improvement
        return TextModel(
            network=self.best.network,
            vocabulary=self._vocabulary,
            settings=self._settings.network,
            text=self._settings.text,
            trained_on=self._trained_on,
            training=asdict(self.repeatable_settings)
            | {
                "machine": self._machine,
                "is_repeatable": False,  # until the run has ended
                "kept_step": self.best.step,
                "history": msgspec.to_builtins(self._history),
                "samples": msgspec.to_builtins(self._samples),
            }
            | dict(outcome),
        )

    @property
    def repeatable_settings(self) -> TrainingSettings:
        """The settings that repeat this run, without its budget or epochs."""
        assert self._step_plan is not None  # training has started
        plans = self._step_plan.plans if len(self._step_plan.plans) > 1 else ()
        return replace(self._training, epochs=None, budget=None, steps=self._step_plan.steps, step_plan=plans)

    def resume_from(self, arrays: CheckpointArrays, progress: CheckpointProgress) -> LoopState:
        """Restores the progress of a checkpoint, and returns the state from which the loop resumes."""
        self._history = list(progress.history)
        self._samples = list(progress.samples)
        if progress.best is not None:
            assert isinstance(arrays.best, Network)  # the type that was written
            self.best = Evaluation(**msgspec.to_builtins(progress.best), improved=True, network=arrays.best)
        self._clock.add_spent(progress.spent)
        return LoopState(arrays.training, arrays.good, progress.loop)

    def follow(
        self,
        loop: TrainingLoop,
        should_stop: Callable[[], bool],
        closing_seconds: Callable[[Network], float] = lambda network: 0.0,
    ) -> Generator[Event, None, Stopped]:
        """Passes on the loop's events; saves improved models, writes checkpoints, and samples a text now and then.

        Args:
            loop: the training loop, which this follows to its end.
            should_stop: as for `run_training`.
            closing_seconds: estimates how long scoring a network takes at the end of a run.
        """
        last_sample = time.monotonic()
        for event in loop.events(should_stop):
            self._step_plan = loop.state.progress.step_plan
            yield event
            if isinstance(event, Progress):
                # A resumed run does not include the evaluation that follows a request to stop.
                if self._folder is not None and (event.stopping or self._folder.is_checkpoint_due):
                    yield self._checkpoint(self._folder, loop.state)
                if event.stopping:
                    network = loop.state.training.network
                    assert isinstance(network, Network)
                    if (seconds := closing_seconds(network)) > LONG_WAIT_SECONDS:
                        yield Notice(f"scoring the held-out text, which takes about {format_seconds(seconds)}")
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
        """Compiles the sampling, so that the time of the first evaluation does not include it."""
        text = self._settings.text
        self._sample(TextModel(network, self._vocabulary, self._settings.network, text, self._trained_on))

    def _sample(self, model: TextModel) -> str:
        prompted, seed = model.prompted(), self._settings.training.seed
        count = 1 if self._settings.text.delimiter is None else _SAMPLE_RECORDS
        streams = prompted.stream_many(_SAMPLE_LENGTH, SamplingSettings(), seed=seed, stream_indexes=range(count))
        return "\n".join("".join(stream) for stream in streams)

    def _evaluated(self, evaluation: Evaluation) -> Generator[Event, None, None]:
        entry = HistoryEntry(
            step=evaluation.step,
            train_nats_per_char=finite_or_none(evaluation.train_nats_per_char),
            validation_nats_per_char=finite_or_none(evaluation.validation_nats_per_char),
        )
        self._history.append(entry)
        if evaluation.improved:
            self.best = evaluation
            if not self._samples or evaluation.step >= _SAMPLE_STEP_RATIO * self._samples[-1].step:
                self._samples.append(SampleEntry(step=evaluation.step, text=self._sample(self.model())))
            if self._output is not None:
                try:
                    with self._clock.waiting():
                        self._output.write(self.model().to_bytes())
                    yield Saved(self._output.path)
                except OutputError as error:  # there may be enough space at the next improvement
                    yield Notice(f"{error} Training continues")
        if self._folder is not None:
            metrics = {
                "epoch": evaluation.epoch,
                "validation_bits_per_char": bits_from_nats(evaluation.validation_nats_per_char),
                "improved": evaluation.improved,
            }
            try:
                self._folder.metrics.add(msgspec.to_builtins(entry) | metrics)
            except OutputError as error:
                yield Notice(f"{error} Training continues")

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
        arrays = CheckpointArrays(state.training, state.good, network)
        try:
            with self._clock.waiting():
                return Saved(folder.write_checkpoint(arrays, progress.as_json()))
        except OutputError as error:
            return Notice(f"{error} Training continues; earlier checkpoints are unchanged")
