"""Training: a network's weights follow a producer of blocks; a generator of events reports it."""

from charloom.training.events import Evaluation, Event, Notice, Progress, Sample, Saved, Stopped, follow
from charloom.training.loop import train_network
from charloom.training.schedule import default_updates, learning_rates
from charloom.training.update import TrainingState, make_optimizer, run_block

__all__ = [
    "Evaluation",
    "Event",
    "Notice",
    "Progress",
    "Sample",
    "Saved",
    "Stopped",
    "TrainingState",
    "default_updates",
    "follow",
    "learning_rates",
    "make_optimizer",
    "run_block",
    "train_network",
]
