"""Every setting with its default and range, as frozen dataclasses that are checked when they are built.

The command line, Python and the model file all take their names and defaults from here. Nothing here imports JAX, so
help pages and errors appear at once.
"""

import codecs
import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, SupportsIndex, get_args

from charloom import arguments
from charloom.cell_facts import CELL_FACTS, CellName
from charloom.errors import SettingError
from charloom.printable import quoted

Units = Literal["chars", "bytes"]
Schedule = Literal["constant", "cosine"]
UnknownPolicy = Literal["error", "skip", "replace"]
Precision = Literal["float32", "bfloat16"]
WeightsPrecision = Literal["float32", "bfloat16", "int8"]
PrecisionChoice = Literal["auto", "float32", "bfloat16"]
GateActivation = Literal["sigmoid", "hard_sigmoid"]
CellActivation = Literal["tanh", "relu", "softmax"]
Inputs = Literal["embedding", "one-hot", "scalar"]
HeadName = Literal["dense", "logits", "probabilities"]

MAX_COUNT = 2**31 - 1
"""The largest count. Compiled programs count with 32 bits."""


@dataclass(frozen=True, kw_only=True)
class TextSettings:
    """How a text is read.

    Attributes:
        units: "chars" for Unicode characters, "bytes" for raw bytes.
        lowercase: whether to convert characters to lower case first.
        encoding: the encoding of the files, for models of characters. A model file stores the encoding of the training
            text; other texts may have other encodings.
        delimiter: the text between records, each of which is a separate text; None for continuous text.
        min_count: characters that occur less often are replaced with one unknown character.
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
                raise SettingError(name, f"must be a string, got {quoted(value)}")
        try:
            "".encode(self.encoding)
            codecs.lookup(self.encoding)
        except (LookupError, ValueError):
            raise SettingError(
                "encoding", f"must be a text encoding, such as utf-8, cp1252 or utf-16, got {quoted(self.encoding)}"
            ) from None
        if self.units == "bytes":
            if self.lowercase:
                raise SettingError("lowercase", "changes characters, so it cannot be combined with bytes")
            if self.encoding != "utf-8":
                raise SettingError("encoding", "applies to characters, so it cannot be combined with bytes")
            if self.min_count != 1:
                raise SettingError("min_count", "replaces characters, so it cannot be combined with bytes")
        if self.delimiter == "":
            raise SettingError("delimiter", "must not be empty")
        if self.delimiter is not None and not _is_unicode(self.delimiter):
            raise SettingError("delimiter", "must be valid Unicode text")
        _require_count(self, "min_count")

    def in_encoding(self, encoding: str) -> "TextSettings":
        """Returns these settings with another encoding, to read a text other than the training text.

        Raises:
            SettingError: Python does not know the encoding, or the units are bytes.
        """
        return replace(self, encoding=encoding)

    @property
    def record_end(self) -> str | None:
        """The character for a record's end and start input; None for continuous text."""
        return None if self.delimiter is None else "\n" if self.delimiter in ("\n", "\r\n") else "\x1e"


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """The network's shape. Units and widths are at most 16,384, so that 32 bits can count a kernel's elements.

    Attributes:
        cell: the cell type: "lstm", "gru", "elman" (Keras's SimpleRNN) or "mingru".
        layers: number of recurrent layers, at most 100.
        hidden: number of units per layer.
        embedding: size of the character embedding, if `inputs` is "embedding".
        inputs: what the first layer reads: "embedding" is a trained embedding, "one-hot" a one-hot vector, and "scalar"
            the token's id divided by the vocabulary's size.
        gate_activation: activation of the gates. Keras before 2.3 used "hard_sigmoid", clip(0.2 x + 0.5, 0, 1).
        cell_activation: activation of the candidate and the output. A minGRU's candidate is linear.
        last_cell_activation: activation of the last layer, if it differs.
        head: how the last layer's outputs are used: "dense" maps them to logits. "logits" uses them as logits, and
            "probabilities" as probabilities that may not sum to one. For the last two, `hidden` is the vocabulary's
            size.
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
        _require_count(self, "layers", maximum=100)
        _require_count(self, "hidden", maximum=16_384)
        _require_count(self, "embedding", maximum=16_384)
        _require_choice(self, "inputs", get_args(Inputs))
        _require_choice(self, "gate_activation", get_args(GateActivation))
        _require_choice(self, "cell_activation", get_args(CellActivation))
        if self.last_cell_activation is not None:
            _require_choice(self, "last_cell_activation", get_args(CellActivation))
        _require_choice(self, "head", get_args(HeadName))
        facts, defaults = CELL_FACTS[self.cell], NetworkSettings
        if not facts.has_gate_activation and self.gate_activation != defaults.gate_activation:
            raise SettingError("gate_activation", f"applies to cells with gates; {self.cell} has none")
        for name in ("cell_activation", "last_cell_activation"):
            if not facts.has_cell_activation and getattr(self, name) != getattr(defaults, name):
                raise SettingError(name, f"applies to cells with an activation; the candidate of {self.cell} is linear")

    @property
    def cell_activations(self) -> tuple[CellActivation, ...]:
        """The cell activation of each layer."""
        last = self.last_cell_activation or self.cell_activation
        return (self.cell_activation,) * (self.layers - 1) + (last,)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> "NetworkSettings":
        """Returns the settings in `mapping`, whose keys must be exactly the fields' names.

        Raises:
            SettingError: a key is unknown or missing, or a value is of the wrong type or range.
        """
        names = [field.name for field in fields(cls)]
        for key in mapping:
            if key not in names:
                raise SettingError(str(key), "is not a setting of this version")
        for name in names:
            if name not in mapping:
                raise SettingError(name, "is missing")
        return cls(**mapping)


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How the network is trained.

    Attributes:
        batch_size: number of rows per batch. Each row is a contiguous stream of the text.
        sequence_length: characters per row in one step (truncated BPTT).
        dropout: fraction of each layer's outputs to drop during training.
        learning_rate: peak learning rate of the schedule.
        schedule: "cosine" falls to zero at the last step; "constant" does not change.
        warmup_ratio: fraction of the steps during which the learning rate rises from zero.
        weight_dropout: fraction of the recurrent weights to drop per step.
        weight_decay: decoupled weight decay: each step shrinks the weight matrices by this times the learning rate.
        clip_norm: maximum global norm of the gradients; larger gradients are scaled down.
        state_reset_probability: probability of zeroing a row's state before a step. Otherwise a row's state is carried
            through the whole run, and the network would never learn to start a text from the zero state.
        epochs: passes over the training part; may be a fraction.
        steps: number of optimizer steps.
        budget: seconds that the whole run may take. Give at most one of `epochs`, `steps` and `budget`. Without any,
            charloom chooses a budget for the length of the text.
        step_plan: the step plan of a run with a budget, to repeat it with the same `steps`; see
            `charloom.training.StepPlan`. Empty for other runs.
        validation: held-out part: below 1 a fraction of the text, from 1 a number of characters or records. None means
            0.1, but at most 500,000 characters.
        patience: number of evaluations without improvement before early stopping; None for no early stopping.
        seed: random seed of the initial weights and of dropout.
        precision: precision of the factors of matrix products; sums, weights and the optimizer are float32. "auto"
            takes bfloat16 where the processor multiplies it faster.
    """

    batch_size: int = 16
    sequence_length: int = 64
    dropout: float = 0.1
    learning_rate: float = 0.006
    schedule: Schedule = "cosine"
    warmup_ratio: float = 0.05
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
    precision: PrecisionChoice = "auto"

    def __post_init__(self) -> None:
        _require_choice(self, "precision", get_args(PrecisionChoice))
        for name in ("batch_size", "sequence_length"):
            _require_count(self, name)
        _require_choice(self, "schedule", get_args(Schedule))
        _require_number(self, "dropout", minimum=0.0, below=1.0)
        _require_number(self, "learning_rate", above=0.0, maximum=1e38)
        _require_number(self, "state_reset_probability", minimum=0.0, below=1.0)
        _require_number(self, "warmup_ratio", minimum=0.0, below=1.0)
        _require_number(self, "weight_dropout", minimum=0.0, maximum=0.99)
        _require_number(self, "weight_decay", minimum=0.0, below=100.0)
        _require_number(self, "clip_norm", above=0.0, maximum=1e38)
        if self.epochs is not None:
            _require_number(self, "epochs", above=0.0, maximum=1e9)
        if self.steps is not None:
            _require_count(self, "steps")
        if self.budget is not None:
            _require_number(self, "budget", above=0.0, maximum=1e9)
        lengths = [name for name in ("steps", "budget", "epochs") if getattr(self, name) is not None]
        if len(lengths) > 1:
            raise SettingError(lengths[0], f"and {lengths[1]} both set the length of training: give only one of them")
        self._require_step_plan()
        if self.validation is not None:
            _require_number(self, "validation", above=0.0)
            if self.validation >= 1 and self.validation != int(self.validation):
                raise SettingError(
                    "validation",
                    f"must be a fraction below 1 or a whole number of characters or records, got {self.validation:g}",
                )
        if self.patience is not None:
            _require_count(self, "patience")
        _set(self, "seed", require_seed(self.seed))

    def _require_step_plan(self) -> None:
        try:
            plans = tuple(
                (
                    arguments.whole_number("step_plan", step, 0, MAX_COUNT),
                    arguments.whole_number("step_plan", total, 0, MAX_COUNT),
                )
                for step, total in self.step_plan
            )
        except (TypeError, ValueError):
            raise SettingError(
                "step_plan", f"must be pairs of whole numbers from 0 to {MAX_COUNT:,}, got {quoted(self.step_plan)}"
            ) from None
        _set(self, "step_plan", plans)
        if not plans:
            return
        starts = [step for step, _ in plans]
        if starts != sorted(set(starts)) or starts[0] != 0 or any(step >= total for step, total in plans):
            raise SettingError("step_plan", "must be pairs of a step, ascending from 0, and a larger total of steps")
        if any(total <= next_start for (_, total), (next_start, _) in itertools.pairwise(plans)):
            raise SettingError("step_plan", "has a plan that starts after the previous one ended")
        if plans[-1][1] != self.steps:
            raise SettingError("step_plan", f"ends after {plans[-1][1]:,} steps, but steps is {self.steps}: give both")


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How to sample the next character from the model's distribution.

    Attributes:
        temperature: divides the logits; 0 always takes the most likely character (greedy).
        top_k: sample only from the k most likely characters.
        top_p: sample only from the fewest characters whose total probability reaches p.
    """

    temperature: float = 0.8
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        _require_number(self, "temperature", minimum=0.0, maximum=1e6)
        if self.top_k is not None:
            _require_count(self, "top_k")
        if self.top_p is not None:
            _require_number(self, "top_p", above=0.0, maximum=1.0)


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def require_seed(seed: SupportsIndex) -> int:
    """Returns `seed` as an int; raises `SettingError` unless it is a whole number from 0 to 2**63 - 1."""
    return arguments.whole_number("seed", seed, 0, 2**63 - 1)


def require_count(name: str, value: SupportsIndex, maximum: int = MAX_COUNT) -> int:
    """Returns `value` as an int; raises `SettingError` unless it is a whole number from 1 to `maximum`."""
    return arguments.whole_number(name, value, 1, maximum)


def require_path(name: str, path: str | bytes | os.PathLike[Any], *, folder: bool = False) -> Path:
    """Returns `path` as a Path; raises `SettingError` if no file can have this name, or no folder."""
    return arguments.path(name, path, folder=folder)


def _set(settings: object, name: str, value: object) -> None:
    object.__setattr__(settings, name, value)  # works while a frozen dataclass is built


def _require_count(settings: object, name: str, maximum: int = MAX_COUNT) -> None:
    _set(settings, name, require_count(name, getattr(settings, name), maximum))


def _require_choice(settings: object, name: str, choices: tuple[str, ...]) -> None:
    _set(settings, name, arguments.choice(name, getattr(settings, name), choices))


def _require_number(settings: object, name: str, **bounds: float) -> None:
    _set(settings, name, arguments.number(name, getattr(settings, name), **bounds))
