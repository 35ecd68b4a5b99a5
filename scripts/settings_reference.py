#!/usr/bin/env python3
"""Writes docs/reference/settings.md: every setting of training, in the command line's words and in Python's.

Defaults come from the settings' dataclasses. Ranges and effects are below; a test tries the ends of every range.
"""

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, get_args

from charloom.artifacts import write_bytes
from charloom.cell_facts import CELL_FACTS
from charloom.runs.recipe import PICKED
from charloom.settings import (
    MAX_COUNT,
    CellActivation,
    GateActivation,
    HeadName,
    Inputs,
    NetworkSettings,
    PrecisionChoice,
    Schedule,
    TextSettings,
    TrainingSettings,
)

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "settings.md"


@dataclass(frozen=True, kw_only=True)
class Range:
    """The numbers that a setting may have.

    Attributes:
        minimum: the smallest one.
        above: a bound that they exceed.
        maximum: the largest one.
        below: a bound that they stay under.
        whole: whether they are whole numbers.
        note: text that follows the bounds.
    """

    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    below: float | None = None
    whole: bool = False
    note: str = ""

    def __str__(self) -> str:
        bounds = [("at least", self.minimum), ("above", self.above), ("below", self.below), ("at most", self.maximum)]
        bounds_in_words = [f"{word} {_number(bound)}" for word, bound in bounds if bound not in (None, MAX_COUNT)]
        if self.minimum is not None and self.maximum not in (None, MAX_COUNT):
            bounds_in_words = [f"{_number(self.minimum)} to {_number(self.maximum)}"]
        return f"{'whole number' if self.whole else 'number'}, {' and '.join(bounds_in_words)}{self.note}"


@dataclass(frozen=True)
class Setting:
    """A row of the page.

    Attributes:
        option: on the command line; empty if it has none.
        keyword: in Python; empty if it has none.
        field: the field of a dataclass that it is, or whose default it has.
        allowed: its values.
        effect: what it does, and when to change it.
        default: shown instead of the field's.
    """

    option: str
    keyword: str
    field: tuple[type, str] | None
    allowed: Range | tuple[str, ...] | str
    effect: str
    default: str = ""


_COUNT = Range(minimum=1, maximum=MAX_COUNT, whole=True)
_SHARE = Range(minimum=0, below=1)


def _of(kind: type, name: str, allowed: Range | tuple[str, ...] | str, effect: str, default: str = "") -> Setting:
    return Setting(f"--{name.replace('_', '-')}", name, (kind, name), allowed, effect, default)


def _network(name: str, allowed: Range | tuple[str, ...] | str, effect: str) -> Setting:
    return _of(NetworkSettings, name, allowed, effect)


def _training(name: str, allowed: Range | tuple[str, ...] | str, effect: str, default: str = "") -> Setting:
    return _of(TrainingSettings, name, allowed, effect, default)


def _text(name: str, allowed: Range | tuple[str, ...] | str, effect: str, default: str = "") -> Setting:
    return _of(TextSettings, name, allowed, effect, default)


SECTIONS: dict[str, tuple[Setting, ...]] = {
    "Network": (
        _network(
            "cell",
            tuple(CELL_FACTS),
            "Type of the recurrent layers. Change it to compare: `gru` is smaller, `elman` is the simplest. "
            "`mingru` has no recurrent weights and runs without native kernels; give it 2 or 3 layers.",
        ),
        _network(
            "hidden",
            Range(minimum=1, maximum=16_384, whole=True),
            "Units per layer. More units learn more and train more slowly. Raise it for a long text and a long run. "
            "Lower it if the validation loss rises while the training loss falls.",
        ),
        _network(
            "layers",
            Range(minimum=1, maximum=100, whole=True),
            "Number of recurrent layers. More layers need more time, so try more units first.",
        ),
        _network(
            "embedding",
            Range(minimum=1, maximum=16_384, whole=True),
            "Size of the vector that stands for a character. Raise it for a vocabulary of thousands of characters.",
        ),
    ),
    "Length of the run": (
        _training(
            "budget",
            Range(above=0, maximum=1e9, note=", in seconds, or such as `90s`, `10m`, `1h30m`"),
            "Time for the whole call. charloom then picks every setting whose default is *picked*. "
            "Give at most one of `budget`, `epochs` and `steps`.",
            "20 s to 10 min, depending on the length of the text",
        ),
        _training(
            "epochs",
            Range(above=0, maximum=1e9),
            "Passes over the training text, instead of a budget. Use it for runs that others can repeat exactly.",
        ),
        _training("steps", _COUNT, "Optimizer steps, instead of a budget."),
        _training(
            "patience",
            _COUNT,
            "Evaluations without improvement before early stopping. Set it for long runs, for example to 5.",
            "none: run all steps",
        ),
        _training(
            "validation",
            Range(above=0, note=": below 1 a fraction, from 1 a whole number of characters or records"),
            "What to hold out: the end of a text, or records drawn by the seed. Lower it if you have little text.",
            "0.1, at most 500,000 characters",
        ),
    ),
    "Optimization": (
        _training(
            "batch_size",
            _COUNT,
            "Rows per batch, each a contiguous stream of the text. Larger batches train faster per character and make "
            "fewer steps per epoch. If you raise it, raise the learning rate too. charloom lowers it for a short text.",
        ),
        _training(
            "sequence_length",
            _COUNT,
            "Characters per row in one step (truncated BPTT). Gradients flow back that far. Raise it if the model "
            "should learn dependencies over longer distances. charloom lowers it for a short text.",
        ),
        _training(
            "learning_rate",
            Range(above=0, maximum=1e38),
            "Peak learning rate of the schedule. Lower it if the loss diverges.",
        ),
        _training(
            "schedule", get_args(Schedule), "`cosine` falls to zero at the last step, `constant` stays at the peak."
        ),
        Setting(
            "--warmup-ratio",
            "warmup_ratio",
            (TrainingSettings, "warmup_ratio"),
            _SHARE,
            "Fraction of the run in which the learning rate rises from zero. Raise it if the loss jumps at the start.",
        ),
        _training(
            "clip_norm",
            Range(above=0, maximum=1e38),
            "Global norm that gradients are clipped to. Lower it if individual steps make the loss jump.",
        ),
        _training(
            "precision",
            get_args(PrecisionChoice),
            "Precision of the factors of matrix products. Sums, weights and the optimizer are float32. `auto` takes "
            "`bfloat16` on processors that multiply it faster.",
        ),
        _training(
            "state_reset_probability",
            _SHARE,
            "Probability of zeroing a row's state before a step, so that the model also learns to begin a text. "
            "Raise it if short prompts give poor texts. Records always begin from zero.",
        ),
        _training(
            "seed",
            Range(minimum=0, maximum=2**63 - 1, whole=True),
            "Random seed of the initial weights, dropout and held-out records. Change it to see how much results vary.",
        ),
    ),
    "Regularization": (
        _training(
            "dropout",
            _SHARE,
            "Fraction of each layer's outputs to drop during training. Raise it against overfitting, 0.3 to "
            "0.5 for texts that are read many times. Use 0 if the text is read once.",
        ),
        _training(
            "weight_dropout",
            Range(minimum=0, maximum=0.99),
            "Fraction of the recurrent weights to drop in each step. Use it for texts that are read ten times or more. "
            "`mingru` has no recurrent weights.",
        ),
        _training(
            "weight_decay",
            Range(minimum=0, below=100),
            "Decoupled weight decay, as in AdamW: each step shrinks every matrix by this fraction times the learning "
            "rate.",
        ),
    ),
    "Text": (
        _text("lowercase", "on or off", "Convert the text to lower case. It makes the vocabulary smaller.", "off"),
        Setting(
            "--bytes",
            "bytes",
            (TextSettings, "units"),
            "on or off",
            "Model raw bytes instead of characters. Use it for binary files, or for text in many writing systems.",
            "off",
        ),
        _text(
            "encoding",
            "a text encoding that Python knows",
            "Encoding of the text. Change it for older files, for example to `cp1252`.",
        ),
        Setting(
            "--records",
            "records",
            None,
            "on or off",
            "Treat each line as a separate text: names, molecules, log lines.",
            "off",
        ),
        _text(
            "delimiter",
            "a non-empty string",
            "Text between records, if it is not the end of a line. On the command line, `\\n` and `\\t` work.",
            "none, or the end of a line with `--records`",
        ),
        _text(
            "min_count",
            _COUNT,
            "Replace characters that occur fewer times than this with one unknown character. Raise it for a text "
            "with thousands of rare characters.",
        ),
    ),
    "Files": (
        Setting(
            "SOURCE...",
            "sources",
            None,
            "files, folders, glob patterns, `-` or corpus names",
            "What to train on. `-` is standard input.",
            "required",
        ),
        Setting(
            "--out",
            "out",
            None,
            "a file",
            "Model file, written at each improvement. An earlier model is kept as NAME.previous.safetensors.",
            "the source's name with .safetensors; in Python none",
        ),
        Setting(
            "--force",
            "force",
            None,
            "on or off",
            "Replace an earlier model without keeping it, and train even if memory seems too small.",
            "off",
        ),
        Setting(
            "--run",
            "run",
            None,
            "a folder",
            "Folder for checkpoints and metrics. The run can be resumed from it.",
            "none",
        ),
        Setting(
            "--resume",
            "",
            None,
            "a run folder",
            "Resume a run with its own settings. In Python, call `charloom.resume`.",
            "none",
        ),
        Setting(
            "--repeat",
            "",
            None,
            "a model file",
            "Train again exactly as this model was trained, on the same text.",
            "none",
        ),
        Setting(
            "--cache",
            "cache",
            None,
            "a folder",
            "Folder for the encoded text, which then does not have to fit in memory. Not for records.",
            "the user's cache, for texts of 100 MB and more",
        ),
        Setting("--report", "", None, "on or off", "Write an HTML page about the model next to it.", "off"),
        Setting("--tensorboard", "", None, "on or off", "Write TensorBoard event files into the run folder.", "off"),
    ),
    "Process": (
        Setting(
            "--threads",
            "",
            None,
            _COUNT,
            "Number of threads. Lower it to leave cores free. Only the last bits of a result can depend on it.",
            "the cores this process may use",
        ),
        Setting(
            "--json",
            "",
            None,
            "on or off",
            "Print JSON on standard output and everything else on standard error.",
            "off",
        ),
        Setting(
            "",
            "on_event",
            None,
            "a function",
            "Called with each event of the run: progress, evaluations, samples. `print` is the simplest one.",
            "nothing is called",
        ),
    ),
}
"""What a user can set, by heading."""

STUDIES = (
    Setting(
        "",
        "inputs",
        (NetworkSettings, "inputs"),
        get_args(Inputs),
        "What the first layer reads of a character: its row of the embedding, its one-hot vector, or its id divided by "
        "the vocabulary's size.",
    ),
    Setting(
        "",
        "gate_activation",
        (NetworkSettings, "gate_activation"),
        get_args(GateActivation),
        "Activation of the gates, which `elman` does not have. `hard_sigmoid` is clip(0.2 x + 0.5, 0, 1), as in Keras "
        "before 2.3.",
    ),
    Setting(
        "",
        "cell_activation",
        (NetworkSettings, "cell_activation"),
        get_args(CellActivation),
        "Activation of the candidate and of the output. The candidate of `mingru` is linear.",
    ),
    Setting(
        "",
        "last_cell_activation",
        (NetworkSettings, "last_cell_activation"),
        get_args(CellActivation),
        "The same for the last layer.",
        "that of the other layers",
    ),
    Setting(
        "",
        "head",
        (NetworkSettings, "head"),
        get_args(HeadName),
        "`dense` maps the last layer's outputs to logits. `logits` uses the outputs as logits, and `probabilities` as "
        "probabilities.",
    ),
    Setting(
        "",
        "step_plan",
        (TrainingSettings, "step_plan"),
        "pairs of whole numbers",
        "How many steps a run with a budget planned, and when it changed that plan. `--repeat` reads it.",
        "empty",
    ),
)
"""What only experiments and model files set."""


def main() -> None:
    """Writes the page."""
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(PAGE, page().encode())


def page() -> str:
    """Returns the page in Markdown: one table per section."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Settings"
    yield ""
    yield "These are the settings of `charloom train` and of `charloom.train`."
    yield "`scripts/settings_reference.py` writes this page, with the defaults of the settings' classes."
    yield ""
    yield "- **Picked** settings: with a budget, charloom picks those that you leave out, and prints what it picked."
    yield "  [Recipe](../design/recipe.md) says how. With `epochs` or `steps` it uses the second default."
    yield "- In Python, leave a keyword out to get its default. A value out of its range raises `SettingError`."
    yield "- charloom adjusts settings to a short text where it must, and reports each change."
    yield "- A model file contains the settings that it was trained with. In Python, they are in `model.training`."
    for heading, settings in SECTIONS.items():
        yield ""
        yield f"## {heading}"
        yield ""
        yield "| command line | Python | default | values | effect |"
        yield "| --- | --- | --- | --- | --- |"
        for one in settings:
            yield f"| {_code(one.option)} | {_code(one.keyword)} | {default(one)} | {_values(one)} | {one.effect} |"
    yield ""
    yield "## Settings of experiments"
    yield ""
    yield "Only the experiments of `charloom reproduce` and model files use these fields of `NetworkSettings` and"
    yield "`TrainingSettings`."
    yield ""
    yield "| field | default | values | effect |"
    yield "| --- | --- | --- | --- |"
    for one in STUDIES:
        yield f"| {_code(one.keyword)} | {default(one)} | {_values(one)} | {one.effect} |"


def default(setting: Setting) -> str:
    """Returns a setting's default as the page shows it."""
    if setting.default or setting.field is None:
        return setting.default
    kind, name = setting.field
    value: Any = next(field.default for field in fields(kind) if field.name == name)
    if value is MISSING:
        raise ValueError(f"{name} has no default")
    bounds_in_words = "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return f"picked, or {bounds_in_words} without a budget" if name in PICKED else bounds_in_words


def _code(name: str) -> str:
    return f"`{name}`" if name else ""


def _values(setting: Setting) -> str:
    if isinstance(setting.allowed, tuple):
        return ", ".join(map(_code, setting.allowed))
    return str(setting.allowed)


def _number(value: float | None) -> str:
    assert value is not None  # absent bounds are not shown
    powers = {2**63 - 1: "2⁶³ - 1", 1e38: "10³⁸"}
    return powers.get(value) or (f"{value:,.0f}" if value == int(value) else f"{value:g}")


if __name__ == "__main__":
    main()
