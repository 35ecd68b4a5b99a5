"""Every setting, its default and its range: frozen dataclasses, checked when built.

The command line, Python and the model file all take their words and defaults from here. Nothing
here imports JAX, so that help pages and refusals come at once.
"""

import codecs
import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, SupportsIndex, get_args

from charloom import arguments
from charloom.errors import SettingError
from charloom.printable import quoted

Units = Literal["chars", "bytes"]
Schedule = Literal["constant", "cosine"]
UnknownPolicy = Literal["error", "skip", "replace"]
CellName = Literal["lstm", "gru", "elman"]
GateActivation = Literal["sigmoid", "hard_sigmoid"]
CellActivation = Literal["tanh", "relu", "softmax"]
Inputs = Literal["embedding", "one-hot", "scalar"]
HeadName = Literal["dense", "logits", "probabilities"]

MOST_COUNT = 2**31 - 1
"""Counts are no larger: the programs that count have 32 bits."""


@dataclass(frozen=True, kw_only=True)
class TextSettings:
    """How a text is read.

    Attributes:
        units: "chars" for Unicode characters, "bytes" for raw bytes.
        lowercase: whether characters are lower-cased first.
        encoding: of the files, where characters are read. A model remembers the one that it was trained from; other
            texts are in encodings of their own.
        delimiter: what stands between records, each a separate text; None for a text that goes on.
        min_count: characters that occur less often are folded into one unknown character.
    """

    units: Units = "chars"
    lowercase: bool = False
    encoding: str = "utf-8"
    delimiter: str | None = None
    min_count: int = 1

    def __post_init__(self) -> None:
        _require_choice(self, "units", get_args(Units))
        _set(self, "lowercase", arguments.flag("lowercase", self.lowercase))
        for name in ("encoding", "delimiter"):
            if not isinstance(value := getattr(self, name), str) and (value is not None or name == "encoding"):
                raise SettingError(name, f"must be a text, got {quoted(value)}")
        try:
            "".encode(self.encoding)
            codecs.lookup(self.encoding)
        except (LookupError, ValueError):
            raise SettingError(
                "encoding", f"names no text encoding: {quoted(self.encoding)}; try utf-8, cp1252 or utf-16"
            ) from None
        if self.units == "bytes":
            if self.lowercase:
                raise SettingError("lowercase", "changes characters; it does not go with bytes")
            if self.encoding != "utf-8":
                raise SettingError("encoding", "is for characters, and bytes are read as they are")
            if self.min_count != 1:
                raise SettingError("min_count", "folds characters; it does not go with bytes")
        if self.delimiter == "":
            raise SettingError("delimiter", "must not be empty")
        if self.delimiter is not None and not _is_unicode(self.delimiter):
            raise SettingError("delimiter", "must be text, in UTF-8")
        _require_count(self, "min_count")

    def in_encoding(self, encoding: str) -> "TextSettings":
        """Returns how to read another text than the one trained on: the same way, from `encoding`.

        Raises:
            SettingError: there is no such encoding, or bytes are read, which have none.
        """
        return replace(self, encoding=encoding)

    @property
    def record_end(self) -> str | None:
        """The character that stands for a record's end, and for its start input; None for a text that goes on."""
        return None if self.delimiter is None else "\n" if self.delimiter in ("\n", "\r\n") else "\x1e"


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """The network's shape. Units and widths are at most 16,384, so that a kernel's elements are counted in 32 bits.

    Attributes:
        cell: "lstm", "gru" or "elman" (Keras's SimpleRNN).
        layers: how many recurrent layers, at most 100.
        hidden: units of each layer.
        embedding: width of the character embedding; used where `inputs` is "embedding".
        inputs: what the first layer reads of a token: its row of a trained embedding, its one-hot vector,
            or one number, its id over the vocabulary's size.
        gate_activation: of the gates; Keras before 2.3 had "hard_sigmoid", clip(0.2 x + 0.5, 0, 1).
        cell_activation: of the candidate and the output.
        last_cell_activation: that of the last layer, where it is another one.
        head: what becomes of the last layer's outputs: "dense" maps them to logits; "logits" takes them for
            logits as they are, and "probabilities" for probabilities that may not sum to one. For
            both of these `hidden` is the vocabulary's size.
    """

    cell: CellName = "lstm"
    layers: int = 1
    hidden: int = 256
    embedding: int = 64
    inputs: Inputs = "embedding"
    gate_activation: GateActivation = "sigmoid"
    cell_activation: CellActivation = "tanh"
    last_cell_activation: CellActivation | None = None
    head: HeadName = "dense"

    def __post_init__(self) -> None:
        _require_choice(self, "cell", get_args(CellName))
        _require_count(self, "layers", most=100)
        _require_count(self, "hidden", most=16_384)
        _require_count(self, "embedding", most=16_384)
        _require_choice(self, "inputs", get_args(Inputs))
        _require_choice(self, "gate_activation", get_args(GateActivation))
        _require_choice(self, "cell_activation", get_args(CellActivation))
        if self.last_cell_activation is not None:
            _require_choice(self, "last_cell_activation", get_args(CellActivation))
        _require_choice(self, "head", get_args(HeadName))
        if self.cell == "elman" and self.gate_activation != "sigmoid":
            raise SettingError("gate_activation", "is for cells with gates; Elman's has none")

    @property
    def cell_activations(self) -> tuple[CellActivation, ...]:
        """The cell activation of each layer."""
        last = self.last_cell_activation or self.cell_activation
        return (self.cell_activation,) * (self.layers - 1) + (last,)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> "NetworkSettings":
        """Returns the settings in `mapping`, which has exactly the fields' names.

        Raises:
            SettingError: a key is unknown or missing, or a value is of the wrong type or range.
        """
        names = [field.name for field in fields(cls)]
        for key in mapping:
            if key not in names:
                raise SettingError(str(key), "is not a setting that this version knows")
        for name in names:
            if name not in mapping:
                raise SettingError(name, "is missing")
        return cls(**mapping)


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How the network is trained.

    Attributes:
        batch_size: streams of the text that are read side by side.
        sequence_length: characters a row reads in one step (the truncated-BPTT span).
        dropout: share of each layer's outputs that is zeroed during training.
        learning_rate: the highest rate of the schedule.
        schedule: "cosine" falls to zero at the last step, "constant" stays.
        warmup: share of the steps over which the rate first rises from zero.
        weight_dropout: share of the recurrent weights that a step does without.
        weight_decay: share of each matrix of weights that a step takes away, times the rate.
        clip_norm: gradients with a larger global norm are scaled down to it.
        state_reset_probability: share of a row's steps before which its state is zeroed. A row reads on for the whole
            run; a network that had only ever seen a warm state would be lost at the beginning of a text.
        epochs: passes over the training part; may be a fraction of one.
        steps: optimizer steps.
        budget: seconds that the whole run may take. At most one of `epochs`, `steps` and `budget`; none of them
            means a budget that suits the text.
        step_plan: of a run that ended by a budget and is made once more by `steps`: its plans, see
            `charloom.training.StepPlan`; empty for a run that goes on evenly.
        validation: below 1 a share of the text, from 1 a count of characters or of records; None means 0.1, and
            at most 500,000 characters.
        patience: evaluations in a row without an improvement that end the run; None for all steps.
        seed: of the initial weights and of dropout.
    """

    batch_size: int = 16
    sequence_length: int = 64
    dropout: float = 0.1
    learning_rate: float = 0.006
    schedule: Schedule = "cosine"
    warmup: float = 0.05
    weight_dropout: float = 0.0
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    state_reset_probability: float = 0.01
    epochs: float | None = None
    steps: int | None = None
    budget: float | None = None
    step_plan: tuple[tuple[int, int], ...] = ()
    validation: float | None = None
    patience: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_size", "sequence_length"):
            _require_count(self, name)
        _require_choice(self, "schedule", get_args(Schedule))
        _require_number(self, "dropout", least=0.0, below=1.0)
        _require_number(self, "learning_rate", above=0.0, most=1e38)
        _require_number(self, "state_reset_probability", least=0.0, below=1.0)
        _require_number(self, "warmup", least=0.0, below=1.0)
        _require_number(self, "weight_dropout", least=0.0, most=0.99)
        _require_number(self, "weight_decay", least=0.0, below=100.0)
        _require_number(self, "clip_norm", above=0.0, most=1e38)
        if self.epochs is not None:
            _require_number(self, "epochs", above=0.0, most=1e9)
        if self.steps is not None:
            _require_count(self, "steps")
        if self.budget is not None:
            _require_number(self, "budget", above=0.0, most=1e9)
        lengths = [name for name in ("steps", "budget", "epochs") if getattr(self, name) is not None]
        if len(lengths) > 1:
            raise SettingError(lengths[0], f"and {lengths[1]} both say how long to train: give one")
        self._require_step_plan()
        if self.validation is not None:
            _require_number(self, "validation", above=0.0)
            if self.validation >= 1 and self.validation != int(self.validation):
                raise SettingError(
                    "validation",
                    f"is a share below 1 or a whole count of characters, got {self.validation:g}",
                )
        if self.patience is not None:
            _require_count(self, "patience")
        _set(self, "seed", require_seed(self.seed))

    def _require_step_plan(self) -> None:
        try:
            plans = tuple(
                (
                    arguments.whole_number("step_plan", step, 0, MOST_COUNT),
                    arguments.whole_number("step_plan", all_, 0, MOST_COUNT),
                )
                for step, all_ in self.step_plan
            )
        except (TypeError, ValueError):
            raise SettingError(
                "step_plan", f"must be pairs of whole numbers from 0 to {MOST_COUNT:,}, got {quoted(self.step_plan)}"
            ) from None
        _set(self, "step_plan", plans)
        if not plans:
            return
        begins = [step for step, _ in plans]
        if begins != sorted(set(begins)) or begins[0] != 0 or any(step >= planned for step, planned in plans):
            raise SettingError(
                "step_plan", "must be pairs of a step, ascending from 0, and of a larger count of all steps"
            )
        if any(planned <= after for (_, planned), (after, _) in itertools.pairwise(plans)):
            raise SettingError("step_plan", "has a plan that begins after the one before it ended")
        if plans[-1][1] != self.steps:
            raise SettingError("step_plan", f"ends after {plans[-1][1]:,} steps, and steps are {self.steps}: give both")


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How the next character is chosen from the model's distribution.

    Attributes:
        temperature: divides the logits; 0 takes the most likely character (greedy).
        top_k: choose among the k most likely characters only.
        top_p: choose among the fewest characters whose probabilities reach p together.
    """

    temperature: float = 0.8
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        _require_number(self, "temperature", least=0.0, most=1e6)
        if self.top_k is not None:
            _require_count(self, "top_k")
        if self.top_p is not None:
            _require_number(self, "top_p", above=0.0, most=1.0)


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def require_seed(seed: SupportsIndex) -> int:
    """Returns `seed` as an int; raises `SettingError` unless it is a whole number from 0 to 2**63 - 1."""
    return arguments.whole_number("seed", seed, 0, 2**63 - 1)


def require_count(name: str, value: SupportsIndex, most: int = MOST_COUNT) -> int:
    """Returns `value` as an int; raises `SettingError` unless it is a whole number from 1 to `most`."""
    return arguments.whole_number(name, value, 1, most)


def require_path(name: str, path: str | bytes | os.PathLike[Any], *, folder: bool = False) -> Path:
    """Returns `path` as a Path; raises `SettingError` unless it can be a file's name, or a folder's."""
    return arguments.path(name, path, folder=folder)


def _set(settings: object, name: str, value: object) -> None:
    object.__setattr__(settings, name, value)  # while a frozen dataclass is built


def _require_count(settings: object, name: str, most: int = MOST_COUNT) -> None:
    _set(settings, name, require_count(name, getattr(settings, name), most))


def _require_choice(settings: object, name: str, choices: tuple[str, ...]) -> None:
    _set(settings, name, arguments.choice(name, getattr(settings, name), choices))


def _require_number(settings: object, name: str, **bounds: float) -> None:
    _set(settings, name, arguments.number(name, getattr(settings, name), **bounds))
