"""`results.json`: validated when it is read, because the report shows what is in it."""

from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from charloom import __version__
from charloom.artifacts import convert_json, parse_json, read_regular_file
from charloom.errors import OutputError
from charloom.printable import one_line
from charloom.studies import STUDIES
from charloom.studies.experiment import keras_figures, published

RESULTS_VERSION = 2
"""Version of the format, increased when the report needs other figures."""

_MOST_BYTES = 16 << 20
_Count = Annotated[int, Meta(ge=0, le=2**53)]
_Several = Annotated[int, Meta(ge=1, le=2**53)]
_Loss = Annotated[float, Meta(ge=-1e30, le=1e30)]
_Losses = Annotated[list[_Loss | None], Meta(min_length=1, max_length=100_000)]
_Share = Annotated[float, Meta(ge=0, le=1)]
_Seconds = Annotated[float, Meta(ge=0, le=1e12)]


class _Score(Struct):
    nats: _Loss | None
    accuracy: _Share


class _Sample(Struct):
    kind: Literal["prediction", "text", "temperature", "piece"]
    title: str
    prompt: str
    text: str
    published: str | UnsetType | None = UNSET
    note: str | UnsetType = UNSET
    right: bool | UnsetType = UNSET
    text_of_seeds: list[str] | UnsetType = UNSET
    space_probabilities: Annotated[list[_Share], Meta(min_length=1)] | UnsetType = UNSET

    def __post_init__(self) -> None:
        if self.kind == "prediction" and self.published is UNSET:
            raise ValueError("published is missing from a prediction")
        if self.kind == "piece" and self.right is UNSET:
            raise ValueError("right is missing from a piece")
        if self.space_probabilities is not UNSET and len(self.space_probabilities) != len(self.text) - 1:
            raise ValueError("space_probabilities needs one value for each character of text after the first")


class _Row(Struct):
    row: _Count
    text: str


class _Preview(Struct):
    inputs: list[list[_Count]]
    targets: list[list[_Count]]
    texts: list[str]
    target_texts: list[str]
    beginning: str
    beginning_ids: list[_Count]
    round_trip: bool
    continuity: list[_Row] | UnsetType = UNSET

    def __post_init__(self) -> None:
        if len({len(self.inputs), len(self.targets), len(self.texts), len(self.target_texts)}) > 1:
            raise ValueError("inputs, targets, texts and target_texts differ in length")


class _Batching(Struct):
    kind: str
    batch_size: _Several
    length: _Several
    targets: Literal["last", "every"]
    steps_per_epoch: _Several
    rows: _Count | UnsetType = UNSET


class _Layer(Struct):
    name: str
    output_shape: list[_Count]
    parameters: _Count
    kernels: str | None


class _Phase(Struct):
    learning_rate: float
    epochs: _Count


class _Check(Struct):
    check: str
    holds: bool


class _Figures(Struct):
    """The results of an experiment, or of a variant of one."""

    summary: str
    lesson: str
    notes: list[str]
    parameters: _Count
    layers: list[_Layer]
    batching: _Batching
    preview: _Preview
    train_characters: _Count
    held_out_characters: _Count
    vocab_size: _Several
    phases: list[_Phase]
    seed: _Count
    losses: _Losses
    accuracy: _Share
    seconds_per_epoch: _Seconds
    training_seconds: _Seconds
    samples: list[_Sample]
    peak_memory_bytes: _Count | None
    checks: list[_Check]
    accuracies: list[_Share] | UnsetType = UNSET
    accuracy_range: tuple[_Share, _Share] | UnsetType = UNSET
    seeds: _Several | UnsetType = UNSET
    held_out_losses: _Losses | UnsetType = UNSET
    train_score: _Score | UnsetType = UNSET
    held_out_score: _Score | UnsetType = UNSET
    held_out_cold_score: _Score | UnsetType = UNSET

    def __post_init__(self) -> None:
        if self.accuracy_range is not UNSET and self.seeds is UNSET:
            raise ValueError("seeds is missing, but accuracy_range is present")
        if not self.held_out_characters:
            return
        for name in ("held_out_losses", "train_score", "held_out_score"):
            if getattr(self, name) is UNSET:
                raise ValueError(f"{name} is missing, but held_out_characters is not 0")


class _ExperimentFigures(_Figures, kw_only=True):
    cut: str | None
    keras: Any
    beats: list[str]
    published: dict[str, Any]
    published_losses: Any
    variants: dict[str, _Figures]
    variants_left_out: list[str]


class _Run(Struct):
    mode: str
    seed: _Count


class _Machine(Struct):
    processor: str
    cores: _Several
    jax: str


class _Results(Struct):
    results_version: int
    version: str
    run: _Run
    machine: _Machine
    studies: dict[str, dict[str, _ExperimentFigures]]


def read_results(path: Path) -> dict[str, Any]:
    """Returns the results at `path`.

    Raises:
        OutputError: the file cannot be read, is damaged, or comes from another version.
    """
    try:
        data = parse_json(read_regular_file(path, _MOST_BYTES), str(path), OutputError)
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror or error}.") from error
    version = data.get("version") if isinstance(data, dict) else None
    if isinstance(version, str) and (version != __version__ or data.get("results_version") != RESULTS_VERSION):
        version = one_line(version)[:40]
        raise OutputError(f"{path} has results of another charloom version ({version}); this is {__version__}.")
    results = convert_json(data, _Results, str(path), OutputError)
    for study, experiments in results.studies.items():
        for name, figures in experiments.items():
            if problem := _problem(study, name, figures):
                place = one_line(f"studies.{study}.{name}")[:100]
                raise OutputError(f"{path}: {place}{problem}.")
    held: dict[str, Any] = data
    return held


def _problem(study: str, name: str, figures: _ExperimentFigures) -> str | None:
    """Returns what contradicts the experiment's declaration or the published figures; None if nothing does."""
    if study not in STUDIES or name not in STUDIES[study].experiments:
        return " is not an experiment that this version knows"
    experiment, of_it = STUDIES[study].experiments[name], published()[study]["experiments"].get(name, {})
    expected = {
        "published": dict(of_it),
        "published_losses": of_it.get("losses"),
        "keras": keras_figures()["experiments"].get(name),
        "beats": list(experiment.beats),
    }
    for field, value in expected.items():
        if getattr(figures, field) != value:
            return f".{field} differs from the value in this version"
    if unknown := figures.variants.keys() - experiment.variants.keys():
        return f".variants has {one_line(min(unknown))[:100]}, which this version does not know"
    if ("held_out_loss" in of_it or experiment.beats) and figures.held_out_losses is UNSET:
        return ".held_out_losses is missing"
    return None
