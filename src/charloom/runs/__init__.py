"""Runs: from a corpus to a model file, with checkpoints to resume from."""

from charloom.runs.dynamic_evaluation import dynamic_score, token_stream
from charloom.runs.from_python import resume, train
from charloom.runs.repeating import repeated_training
from charloom.runs.run_file import settings_of_run
from charloom.runs.run_settings import RunSettings
from charloom.runs.tensorboard import TensorBoardWriter
from charloom.runs.training_run import TrainingResult, run_training

__all__ = [
    "RunSettings",
    "TensorBoardWriter",
    "TrainingResult",
    "dynamic_score",
    "repeated_training",
    "resume",
    "run_training",
    "settings_of_run",
    "token_stream",
    "train",
]
