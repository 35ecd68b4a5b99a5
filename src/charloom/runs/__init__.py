"""Runs: from a corpus to a model file."""

from charloom.runs.training_run import RunSettings, TrainingResult, run_training, train

__all__ = ["RunSettings", "TrainingResult", "run_training", "train"]
