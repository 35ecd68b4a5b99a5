"""What a training run tells of itself, for a terminal, a log or a notebook to show."""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from charloom.inference import MeanScore
from charloom.models import Network

TrainingEnd = Literal["finished", "interrupted", "diverged", "patience"]


@dataclass(frozen=True)
class Notice:
    """A line that a user would want to read, such as a setting changed to fit the text."""

    text: str


@dataclass(frozen=True)
class Progress:
    """A dispatch of steps is done.

    Attributes:
        step: steps made so far, of `steps`.
        epoch: passes over the training part so far.
        train_nats_per_char: mean over the dispatch's characters, while the weights moved.
        chars_per_second: training characters over time inside dispatches after the first; 0 until
            the second.
        seconds_left: of training, at that speed; with a budget all that is left of it; None until it is known.
        stopping: whether a wish to stop has come, and no more steps are made.
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
    """The validation part is being scored from now on.

    Attributes:
        seconds: about how long that takes; None until it is known.
    """

    seconds: float | None


@dataclass(frozen=True)
class Evaluation:
    """The validation part was scored.

    Attributes:
        train_nats_per_char: mean over the characters read since the evaluation before, with
            dropout, while the weights moved.
        validation_nats_per_char: in rows, each primed; see `charloom.data.evaluation_pass`.
        improved: whether it is the lowest so far.
        network: the weights that were scored, good for as long as anyone holds them.
    """

    step: int
    epoch: float
    train_nats_per_char: float
    validation_nats_per_char: float
    improved: bool
    network: Network = field(repr=False)


@dataclass(frozen=True)
class EpochEnd:
    """An epoch is over.

    Attributes:
        epoch: counted from 1.
        loss_nats: mean over the epoch's predictions, while the weights moved, as Keras shows it.
        accuracy: share of these predictions that were right.
        seconds: of the epoch's steps; the first epoch's have compilation among them.
        held_out: the score on text that is not trained on, where there is any.
    """

    epoch: int
    loss_nats: float
    accuracy: float
    seconds: float
    held_out: MeanScore | None


@dataclass(frozen=True)
class Encoding:
    """A large text is read, before training: once for its characters, and once more to encode them.

    Attributes:
        folder: where what comes of it is kept.
        read: bytes, of both times.
        of: how many these will be; None where a compressed file does not tell.
        is_waiting: whether another process is at it, and this one waits.
    """

    folder: Path
    read: int
    of: int | None
    is_waiting: bool = False


@dataclass(frozen=True)
class Sample:
    """A short text that the model just wrote."""

    text: str


@dataclass(frozen=True)
class Saved:
    """A file was written: the best model so far, or a checkpoint."""

    path: Path


@dataclass(frozen=True)
class Stopped:
    """Training is over; what is left is to score the kept model and to save it.

    Attributes:
        reason: "finished" for all steps made, "interrupted" for a user's wish, "diverged" for a loss
            that is no number, or a hopeless one, "patience" for evaluations that no longer improve.
        step: the steps made, not those of the kept model.
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
    """Calls `on_event` with each event of `run` and returns what the run returns."""
    while True:
        try:
            event = next(run)
        except StopIteration as finished:
            result: ResultT = finished.value
            return result
        on_event(event)
