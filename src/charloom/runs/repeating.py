"""Repeats a run, from the settings and the step plan in a model file."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from charloom.errors import ModelFileError, SettingError, SourceError
from charloom.model import TextModel
from charloom.printable import one_line
from charloom.settings import TrainingSettings

_REQUIRED = ("steps", "batch_size", "sequence_length", "learning_rate", "seed")


def repeated_training(model: TextModel, name: str) -> TrainingSettings:
    """Returns the training settings of `model`, with its step plan.

    Args:
        model: the loaded model.
        name: the file's name, for errors.

    Raises:
        ModelFileError: the file does not say how the model was trained, or the settings contradict each other.
    """
    stored = model.training
    if missing := [field for field in _REQUIRED if field not in stored]:
        raise ModelFileError(
            f"{one_line(name)} does not say how it was trained: {', '.join(missing)} missing. "
            "Give a model that 'charloom train' made."
        )
    if not stored.get("is_repeatable", True):
        raise ModelFileError(
            f"{one_line(name)} cannot be repeated: its training was interrupted, or its loss diverged in a run with a "
            "budget. Train a new model."
        )
    # Earlier versions did not store the precision, because there was only one.
    values = {"precision": "float32"} | {
        field.name: stored[field.name] for field in fields(TrainingSettings) if field.name in stored
    }
    try:
        return TrainingSettings(**values)
    except SettingError as error:
        raise ModelFileError(
            f"{one_line(name)}: training.{error}. The file was changed after it was written."
        ) from None


def require_same_text(trained_on: Mapping[str, Any], found: Mapping[str, str | int]) -> None:
    """Checks that the text `found` is the one that a model was trained on.

    Raises:
        SourceError: it is a different text; the message has both digests.
    """
    if trained_on.get("sha256") != found["sha256"]:
        raise SourceError(
            f"{one_line(str(found['name']))} is not the text that the model was trained on: its SHA-256 is "
            f"{found['sha256']}, the model's is {one_line(str(trained_on.get('sha256', 'unknown')))[:64]}. "
            "Give the model's training text, or train without --repeat."
        )
