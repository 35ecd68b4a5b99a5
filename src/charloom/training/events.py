"""The events of a training run, for display in a terminal, a log or a notebook."""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from charloom.inference import MeanScore
from charloom.models import Network

TrainingEnd = Literal["finished", "interrupted", "diverged", "patience"]


@dataclass(frozen=True)
class Notice:
    """A message for the user, for example about a setting that was changed to fit the text."""

    text: str


@dataclass(frozen=True)
class Progress:
    """A dispatch of steps has finished.

    Attributes:
        step: number of steps made so far.
        steps: planned number of steps.
        epoch: passes over the training part so far.
        train_nats_per_char: mean over the characters of the dispatch, while the weights changed.
        chars_per_second: training characters per second inside dispatches after the first; 0 until the second.
        seconds_left: estimated seconds of training left, or of the budget if there is one; None until it is known.
        stopping: whether a stop was requested and no more steps are made.
    """

    step: int
    steps: int
    epoch: float
    train_nats_per_char: float
    chars_per_second: float
    seconds_left: float | None
    stopping: bool = False


@dataclass(frozen=True)
class Evaluating:
    """Scoring of the validation part has begun.

    Attributes:
        seconds: estimated duration; None until it is known.
    """

    seconds: float | None


@dataclass(frozen=True)
class Evaluation:
    """The validation part has been scored.

    Attributes:
        step: number of steps made so far.
        epoch: passes over the training part so far.
        train_nats_per_char: mean over the characters since the previous evaluation, with dropout, while the weights
            changed.
        validation_nats_per_char: mean over the validation part in rows; see `charloom.data.evaluation_pass`.
        improved: whether it is the lowest so far.
        network: the weights that were scored; the arrays stay valid.
    """

    step: int
    epoch: float
    train_nats_per_char: float
    validation_nats_per_char: float
    improved: bool
    network: Network = field(repr=False)


@dataclass(frozen=True)
class EpochEnd:
    """An epoch has ended.

    Attributes:
        epoch: number of the epoch, counted from 1.
        loss_nats: mean over the epoch's predictions while the weights changed, as Keras reports it.
        accuracy: share of these predictions that were correct.
        seconds: duration of the epoch's steps; in the first epoch, including compilation.
        held_out: the score of held-out text, if there is any.
    """

    epoch: int
    loss_nats: float
    accuracy: float
    seconds: float
    held_out: MeanScore | None


@dataclass(frozen=True)
class Encoding:
    """A large text is being read before training, once to find its characters and once to encode them.

    Attributes:
        folder: the cache folder for the encoded text.
        read: bytes read so far, in both passes together.
        of: bytes to read in both passes; None for a compressed file that does not store its size.
        is_waiting: whether this process waits for another one that is encoding the text.
    """

    folder: Path
    read: int
    of: int | None
    is_waiting: bool = False


@dataclass(frozen=True)
class Sample:
    """A short text that the model has just generated."""

    text: str


@dataclass(frozen=True)
class Saved:
    """A file has been saved: the best model so far, or a checkpoint."""

    path: Path


@dataclass(frozen=True)
class Stopped:
    """Training has ended. The kept model remains to be scored and saved.

    Attributes:
        reason: "finished" after all steps, "interrupted" at the user's request, "diverged" if the loss is NaN or
            hopeless, "patience" if evaluations no longer improve.
        step: number of steps made, which may be more than those of the kept model.
        epoch: passes over the training part.
        chars_per_second: as in `Progress`.
    """

    reason: TrainingEnd
    step: int
    epoch: float
    chars_per_second: float


Event = Notice | Encoding | Progress | Evaluating | Evaluation | EpochEnd | Sample | Saved | Stopped

EventT = TypeVar("EventT")
ResultT = TypeVar("ResultT")


def follow(run: Generator[EventT, None, ResultT], on_event: Callable[[EventT], None]) -> ResultT:
    """Returns the result of `run`, after calling `on_event` with each of its events."""
    while True:
        try:
            event = next(run)
        except StopIteration as finished:
            result: ResultT = finished.value
            return result
        on_event(event)
