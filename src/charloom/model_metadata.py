"""The metadata of a model file: each field with its type and bounds; see docs/design/model-file.md."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct, defstruct, to_builtins

from charloom import __version__
from charloom.artifacts import convert_json
from charloom.errors import ModelFileError, SettingError
from charloom.printable import one_line, quoted
from charloom.settings import NetworkSettings, TextSettings, Units
from charloom.text import Vocabulary

FORMAT_VERSION = 4
"""The version of the model files that charloom writes. It also reads earlier versions, and refuses all others."""

MAX_WINDOW = 4_096
"""The largest window. A model with a window reads that many characters again for each one that it generates."""

_REMEDY = "The file was changed after it was written."
_ADDED_IN_VERSION_2 = {
    "inputs": "embedding",
    "gate_activation": "sigmoid",
    "cell_activation": "tanh",
    "last_cell_activation": None,
    "head": "dense",
}

_RENAMED_IN_VERSION_4 = {
    "lanes": "batch_size",
    "unroll_length": "sequence_length",
    "updates": "steps",
    "kept_update": "kept_step",
    "update": "step",
    "pace": "step_plan",
    "weight_drop": "weight_dropout",
    "cold_starts": "state_reset_probability",
    "warmup": "warmup_ratio",
}

_Count = Annotated[int, Meta(ge=0, le=2**53)]
_Nats = Annotated[float, Meta(ge=0, le=1e9)]
_Share = Annotated[float, Meta(ge=0, lt=1)]
_Positive = Annotated[float, Meta(gt=0, le=1e38)]
_ShortText = Annotated[str, Meta(max_length=100)]


# Exactly the settings of `NetworkSettings`, all of them required.
_Network = defstruct(
    "_Network", [(one.name, one.type) for one in fields(NetworkSettings)], frozen=True, forbid_unknown_fields=True
)


class _Vocabulary(Struct, frozen=True, forbid_unknown_fields=True):
    units: Units
    characters: Annotated[str, Meta(max_length=0x110000)] = ""


class _EarlierText(Struct, frozen=True, forbid_unknown_fields=True):
    lowercase: bool


class _Text(Struct, frozen=True, forbid_unknown_fields=True):
    lowercase: bool
    encoding: _ShortText
    delimiter: Annotated[str, Meta(max_length=1_000)] | None
    min_count: int


class _TrainedOn(Struct, frozen=True):
    name: Annotated[str, Meta(max_length=1_000_000)] = ""
    sha256: Annotated[str, Meta(max_length=64)] = ""
    characters: _Count = 0


class _Evaluation(Struct, frozen=True):
    step: _Count = 0
    train_nats_per_char: _Nats | None = None
    validation_nats_per_char: _Nats | None = None


class _Sample(Struct, frozen=True):
    step: _Count = 0
    text: Annotated[str, Meta(max_length=100_000)] = ""


class _Training(Struct, frozen=True):
    """The training. A later version may have more fields, which charloom keeps and does not use."""

    steps: _Count = 0
    kept_step: _Count = 0
    machine: Annotated[dict[str, Annotated[str, Meta(max_length=1_000)]], Meta(max_length=100)] = {}
    is_repeatable: bool = True
    train_chars: _Count = 0
    validation_chars: _Count = 0
    validation_nats_per_char: _Nats = 0.0
    history: Annotated[list[_Evaluation], Meta(max_length=100_000)] = []
    samples: Annotated[list[_Sample], Meta(max_length=1_000)] = []
    window: Annotated[int, Meta(ge=1, le=MAX_WINDOW)] = 1
    batch_size: _Count = 0
    sequence_length: _Count = 0
    dropout: _Share = 0.0
    learning_rate: _Positive = 1.0
    schedule: _ShortText = ""
    warmup_ratio: _Share = 0.0
    weight_dropout: _Share = 0.0
    weight_decay: Annotated[float, Meta(ge=0, lt=100)] = 0.0
    clip_norm: _Positive = 1.0
    state_reset_probability: _Share = 0.0
    epochs: _Positive | None = None
    budget: _Positive | None = None
    step_plan: Annotated[tuple[tuple[_Count, _Count], ...], Meta(max_length=100_000)] = ()
    validation: _Positive | None = None
    patience: _Count | None = None
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    precision: _ShortText = ""


class _Metadata(Struct, frozen=True, forbid_unknown_fields=True):
    format_version: int
    model: _Network  # type: ignore[valid-type]  # mypy does not know the class that defstruct creates
    vocabulary: _Vocabulary
    text: _Text
    trained_on: _TrainedOn
    training: _Training
    charloom_version: _ShortText = ""


class _EarlierMetadata(_Metadata, frozen=True, forbid_unknown_fields=True):
    """Before version 3, the only setting of the text was its case."""

    text: _EarlierText  # type: ignore[assignment]  # a different type than in the base class, on purpose


@dataclass(frozen=True)
class ModelMetadata:
    """The checked metadata of a model file.

    Attributes:
        format_version: the file's version.
        network: the shape of the network.
        text: how to read texts.
        vocabulary: the model's vocabulary.
        trained_on: the training text, as the file describes it.
        training: the training, as the file describes it.
    """

    format_version: int
    network: NetworkSettings
    text: TextSettings
    vocabulary: Vocabulary
    trained_on: dict[str, Any]
    training: dict[str, Any]


def model_metadata(found: Mapping[str, Any], path: Path) -> ModelMetadata:
    """Returns the metadata in `found`, the JSON of the model file at `path`.

    Raises:
        ModelFileError: it is from a checkpoint or another version, or a field is missing, unknown or invalid.
    """
    version = _version(found, path)
    if version == 1 and isinstance(found.get("model"), dict):
        found = {**found, "model": _ADDED_IN_VERSION_2 | found["model"]}
    if version < 4 and isinstance(found.get("training"), dict):
        found = {**found, "training": _with_current_names(found["training"])}
    read = convert_json(found, _EarlierMetadata if version < 3 else _Metadata, str(path), remedy=_REMEDY)
    section = "model"
    try:
        network = NetworkSettings(**to_builtins(read.model))
        section = "text"
        text = TextSettings(units=read.vocabulary.units, **to_builtins(read.text))
        section = "vocabulary"
        vocabulary = _vocabulary(read.vocabulary, text)
    except SettingError as error:
        raise ModelFileError(f"{one_line(str(path))}: {section}.{error}. {_REMEDY}") from error
    trained_on, training = found["trained_on"], found["training"]
    return ModelMetadata(
        version,
        network,
        text,
        vocabulary,
        _with_integers(trained_on, read.trained_on),
        _with_integers(training, read.training),
    )


def _version(found: Mapping[str, Any], path: Path) -> int:
    shown, version = one_line(str(path)), found.get("format_version")
    if "checkpoint_version" in found:
        raise ModelFileError(f"{shown} is a training checkpoint, not a model. Give the run's model file.")
    if isinstance(version, int | float) and not isinstance(version, bool) and version in range(1, FORMAT_VERSION + 1):
        return int(version)
    made_by = found.get("charloom_version", "another one")
    made_by = one_line(made_by) if isinstance(made_by, str) and len(made_by) <= 40 else quoted(made_by, 40)
    raise ModelFileError(
        f"{shown} has format version {quoted(version, 40)}, made by charloom {made_by}; charloom {__version__} reads "
        f"versions up to {FORMAT_VERSION}. Install the version that made it, or train again."
    )


def _with_current_names(training: dict[str, Any]) -> dict[str, Any]:
    """Returns the training section of an earlier version with the names of version 4."""
    renamed = _renamed(training)
    for name in ("history", "samples"):
        if isinstance(entries := renamed.get(name), list):
            renamed[name] = [_renamed(entry) if isinstance(entry, dict) else entry for entry in entries]
    return renamed


def _renamed(values: dict[str, Any]) -> dict[str, Any]:
    return {_RENAMED_IN_VERSION_4.get(name, name): value for name, value in values.items()}


def _with_integers(found: Mapping[str, Any], read: Struct) -> dict[str, Any]:
    """Returns a section as it was found, with floats such as 5.0 converted in integer fields."""
    return {
        name: checked if isinstance(checked := getattr(read, name, None), int) and isinstance(value, float) else value
        for name, value in found.items()
    }


def _vocabulary(section: _Vocabulary, text: TextSettings) -> Vocabulary:
    characters = section.characters
    if section.units == "bytes":
        if characters:
            raise SettingError("characters", "are given, but the units are bytes")
        return Vocabulary.of_bytes(text.record_end)
    if not characters:
        raise SettingError("characters", "are missing")
    if sorted(set(characters)) != list(characters):
        raise SettingError("characters", "are not sorted, or one appears twice")
    if text.record_end is not None and text.record_end not in characters:
        raise SettingError("characters", "lack the end of a record")
    return Vocabulary("chars", characters, text.record_end)
