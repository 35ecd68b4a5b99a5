"""Training: compiled steps over blocks of text, reported as a stream of events."""

from charloom.training.budget import Budget, Deadline
from charloom.training.events import (
    Encoding,
    EpochEnd,
    Evaluating,
    Evaluation,
    Event,
    Notice,
    Progress,
    Sample,
    Saved,
    Stopped,
    follow,
)
from charloom.training.loop import MAX_RETRIES, LoopProgress, LoopState, TrainingLoop, step_rule
from charloom.training.memory import require_memory, training_bytes
from charloom.training.phases import Phase, has_diverged, train_phases
from charloom.training.schedule import StepPlan, learning_rates
from charloom.training.speed import REFERENCE_VOCABULARY, reading_speed, training_speed
from charloom.training.step import (
    StepRule,
    TrainingState,
    block_steps,
    initial_state,
    make_optimizer,
    root_key,
    run_block,
)
from charloom.training.trainer import Dispatch, Trainer

__all__ = [
    "MAX_RETRIES",
    "REFERENCE_VOCABULARY",
    "Budget",
    "Deadline",
    "Dispatch",
    "Encoding",
    "EpochEnd",
    "Evaluating",
    "Evaluation",
    "Event",
    "LoopProgress",
    "LoopState",
    "Notice",
    "Phase",
    "Progress",
    "Sample",
    "Saved",
    "StepPlan",
    "StepRule",
    "Stopped",
    "Trainer",
    "TrainingLoop",
    "TrainingState",
    "block_steps",
    "follow",
    "has_diverged",
    "initial_state",
    "learning_rates",
    "make_optimizer",
    "reading_speed",
    "require_memory",
    "root_key",
    "run_block",
    "step_rule",
    "train_phases",
    "training_bytes",
    "training_speed",
]
