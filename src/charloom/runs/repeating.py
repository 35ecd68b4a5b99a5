"""A run that is made again, from the settings and the step plan in a model's file."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from charloom.errors import ModelFileError, SettingError, SourceError
from charloom.model import TextModel
from charloom.printable import one_line
from charloom.settings import TrainingSettings

_NEEDED = ("steps", "batch_size", "sequence_length", "learning_rate", "seed")


def repeated_training(model: TextModel, name: str) -> TrainingSettings:
    """Returns how `model` was trained, with its step plan.

    Args:
        model: a model as its file has it.
        name: of the file, for errors.

    Raises:
        ModelFileError: the file does not say how the model was trained, or the settings contradict each other.
    """
    held = model.training
    if missing := [field for field in _NEEDED if field not in held]:
        raise ModelFileError(
            f"{one_line(name)} does not say how it was trained: it has no {', '.join(missing)}. "
            "Give a model that 'charloom train' made."
        )
    if not held.get("is_repeatable", True):
        raise ModelFileError(
            f"{one_line(name)} cannot be repeated: its training was stopped early, or its loss diverged in a run by "
            "the clock. Train a new model."
        )
    values = {field.name: held[field.name] for field in fields(TrainingSettings) if field.name in held}
    try:
        return TrainingSettings(**values)
    except SettingError as error:
        raise ModelFileError(
            f"{one_line(name)}: training.{error}. The file was changed after it was written."
        ) from None


def require_same_text(trained_on: Mapping[str, Any], found: Mapping[str, str | int]) -> None:
    """Makes sure that the text `found` is the one that a model was trained on.

    Raises:
        SourceError: it is another one; the message has both digests.
    """
    if trained_on.get("sha256") != found["sha256"]:
        raise SourceError(
            f"{one_line(str(found['name']))} is another text than the model was trained on: its SHA-256 is "
            f"{found['sha256']}, not {one_line(str(trained_on.get('sha256', 'known')))[:64]}. "
            "Give the model's own text, or train without --repeat."
        )
