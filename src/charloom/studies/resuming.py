"""The checkpoints of an experiment: which one to resume from, and which are no longer needed."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from charloom.artifacts import convert_json, remove_own
from charloom.errors import ModelFileError
from charloom.runs.checkpoint import CHECKPOINT, read_progress, read_state, write_checkpoint
from charloom.studies.checkpoint_rule import CheckpointRule
from charloom.training import TrainingState
from charloom.units import finite_or_none

MODEL_FILE = "model.safetensors"

Epoch = dict[str, float]
"""An epoch's figures: `epoch`, `loss`, `accuracy`, `seconds`, and `val_loss` and `val_accuracy` on held-out text."""

_EVERY_EPOCH = CheckpointRule(template="epoch-{epoch:04d}")
_EVERY_EPOCH_FILES = "epoch-*.safetensors"
_KEPT = 2


def write_checkpoints(
    folder: Path,
    rules: Sequence[CheckpointRule],
    state: TrainingState,
    epochs: Sequence[Epoch],
    identity: Mapping[str, Any],
) -> list[Path]:
    """Saves the checkpoint of the last epoch, and those that `rules` ask for; returns their paths.

    The latest two are kept for resuming. `remove_spent` removes them.

    Raises:
        OutputError: a file cannot be written.
    """
    progress = {
        "identity": dict(identity),
        "epochs": [{name: finite_or_none(value) for name, value in epoch.items()} for epoch in epochs],
    }
    last = len(epochs) - 1
    paths = [folder / rule.name(epochs[last]) for rule in (_EVERY_EPOCH, *rules) if rule.kept(epochs) == last]
    paths = [write_checkpoint(path, state, progress) for path in paths]
    for old in sorted(folder.glob(_EVERY_EPOCH_FILES))[:-_KEPT]:
        remove_own(old, CHECKPOINT)
    return paths


def remove_spent(folder: Path) -> None:
    """Removes the checkpoints that were only kept for resuming."""
    for path in folder.glob(_EVERY_EPOCH_FILES):
        remove_own(path, CHECKPOINT)


class _Epoch(Struct, forbid_unknown_fields=True):
    epoch: Annotated[int, Meta(ge=1)]
    loss: float | None
    accuracy: float | None
    seconds: Annotated[float, Meta(ge=0)]
    val_loss: float | UnsetType | None = UNSET
    val_accuracy: float | UnsetType | None = UNSET


class _StudyProgress(Struct, forbid_unknown_fields=True):
    identity: dict[str, str | int]
    epochs: Annotated[list[_Epoch], Meta(min_length=1)]


def newest_checkpoint(
    folder: Path, like: TrainingState, identity: Mapping[str, Any], most_epochs: int
) -> tuple[tuple[TrainingState, list[Epoch]] | None, list[str]]:
    """Returns the state and epochs of the latest good checkpoint in `folder`, and one line per damaged one.

    Checkpoints for resuming that have another identity are removed, because they would be in the way.
    """
    found: list[tuple[list[Epoch], Path]] = []
    damaged: list[str] = []

    def spent(path: Path) -> None:
        if path.match(_EVERY_EPOCH_FILES):
            remove_own(path, CHECKPOINT)

    for path in sorted(folder.glob("*.safetensors")):
        if path.name == MODEL_FILE:
            continue
        try:
            progress = read_progress(path)
            checked = convert_json(progress, _StudyProgress, str(path))
            if [epoch.epoch for epoch in checked.epochs] != list(range(1, min(len(checked.epochs), most_epochs) + 1)):
                raise ModelFileError(f"{path}: epochs must count up from 1, to {most_epochs:,} at most.")
        except ModelFileError as error:
            damaged.append(str(error))
            spent(path)
            continue
        if progress.get("identity") == dict(identity):
            found.append((_epochs_of(progress), path))
        else:
            spent(path)
    result = None
    for epochs, path in sorted(found, key=lambda pair: len(pair[0]), reverse=True):
        try:
            result = read_state(path, like), epochs
            break
        except ModelFileError as error:
            damaged.append(str(error))
            spent(path)
    instead = "Training starts again." if result is None else "Using the one before it."
    return result, [f"{line} {instead}" for line in damaged]


def _epochs_of(progress: Mapping[str, Any]) -> list[Epoch]:
    return [
        {name: math.nan if value is None else value for name, value in epoch.items()} for epoch in progress["epochs"]
    ]


def best_states(
    folder: Path, rules: Sequence[CheckpointRule], epochs: Sequence[Epoch], like: TrainingState
) -> tuple[list[tuple[str, TrainingState]], list[str]]:
    """Returns the best states that `rules` keep, by name, and one line per damaged checkpoint."""
    states: list[tuple[str, TrainingState]] = []
    damaged: list[str] = []
    for rule in rules:
        if rule.monitor is None or rule.kept(epochs) < 0:
            continue
        path = folder / rule.name(epochs[rule.kept(epochs)])
        try:
            states.append((path.stem, read_state(path, like)))
        except ModelFileError as error:
            damaged.append(f"{error} The report leaves it out.")
    return states, damaged
