"""Training as in tutorials: epochs at a constant learning rate, in phases that share the optimizer."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from charloom.inference import MeanScore
from charloom.training.events import EpochEnd, Event, Progress, Stopped, TrainingEnd
from charloom.training.step import TrainingState
from charloom.training.trainer import Dispatch, Trainer

# A uniform guess among a million characters costs 14 nats. Cells with unbounded outputs can go far beyond that,
# and were never seen to recover: docs/design/studies.md.
_HOPELESS_NATS = 100.0


@dataclass(frozen=True)
class Phase:
    """Epochs at one learning rate. The next phase keeps the optimizer's moments."""

    learning_rate: float
    epochs: int


def has_diverged(loss_nats: float) -> bool:
    """Returns whether a loss is NaN, or so high that training cannot recover."""
    return not loss_nats <= _HOPELESS_NATS


def train_phases(
    trainer: Trainer,
    phases: Sequence[Phase],
    steps_per_epoch: int,
    held_out: Callable[[TrainingState], MeanScore] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Event]:
    """Yields Progress events, an EpochEnd per epoch, and finally Stopped. Training ends if an epoch has diverged.

    If the trainer has already made whole epochs, it continues after them.

    Args:
        trainer: makes the steps.
        phases: the phases, in order.
        steps_per_epoch: number of steps per epoch.
        held_out: scores held-out text after each epoch.
        should_stop: called between dispatches. An epoch that it ends is not reported.
    """
    epoch_rates = np.repeat([phase.learning_rate for phase in phases], [phase.epochs for phase in phases]).astype(
        np.float32
    )
    steps = len(epoch_rates) * steps_per_epoch

    def rates(first: int, count: int) -> np.ndarray:
        return epoch_rates[np.arange(first, first + count) // steps_per_epoch]

    reason: TrainingEnd = "finished"
    while trainer.step < steps and reason == "finished":
        epoch = trainer.step // steps_per_epoch + 1
        done: list[Dispatch] = []
        seconds = 0.0
        while trainer.step < epoch * steps_per_epoch:
            begin = time.perf_counter()
            done.append(trainer.dispatch(epoch * steps_per_epoch, rates))
            seconds += time.perf_counter() - begin
            yield Progress(
                step=trainer.step,
                steps=steps,
                epoch=trainer.step / steps_per_epoch,
                train_nats_per_char=float(done[-1].nats.sum() / done[-1].characters.sum()),
                chars_per_second=trainer.chars_per_second,
                seconds_left=trainer.seconds_for(steps - trainer.step),
            )
            if should_stop():
                reason = "interrupted"
                break
        else:
            nats, correct, characters = (np.concatenate(sums).sum() for sums in zip(*done, strict=True))
            loss_nats = float(nats / characters)
            yield EpochEnd(
                epoch=epoch,
                loss_nats=loss_nats,
                accuracy=float(correct / characters),
                seconds=seconds,
                held_out=held_out(trainer.state) if held_out else None,
            )
            if has_diverged(loss_nats):
                reason = "diverged"
    yield Stopped(reason, trainer.step, trainer.step / steps_per_epoch, trainer.chars_per_second)
