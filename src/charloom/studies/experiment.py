"""Studies and experiments as data, which the same training code runs."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from charloom.models import Network, SequenceModel
from charloom.runs.splits import held_out_characters
from charloom.settings import NetworkSettings, TextSettings
from charloom.studies.batching import Batching
from charloom.studies.checkpoint_rule import CheckpointRule
from charloom.studies.tutorial_models import SharedLayers
from charloom.text import Vocabulary, read_named_corpus
from charloom.training import Phase

if TYPE_CHECKING:
    from charloom.studies.showcases import Showcase

Mode = Literal["quick", "default", "full"]


@dataclass(frozen=True, kw_only=True)
class StudyText:
    """The text that an experiment trains on.

    Attributes:
        source: name of a corpus, or the text itself if `literal` is true.
        literal: whether `source` is the text.
        settings: how to read the text.
        begin: index of the first character to use.
        characters: number of characters to use from there; None for all.
        first: number of these that a shortened run uses, with the vocabulary of all; None for all.
        held_out: number of characters at the end to hold out; below 1, a share of the text.
    """

    source: str
    literal: bool = False
    settings: TextSettings = TextSettings()
    begin: int = 0
    characters: int | None = None
    first: int | None = None
    held_out: float = 0

    def read(self) -> tuple[str | bytes, dict[str, Any]]:
        """Returns the text, and its name, SHA-256 and length as a model file records them.

        Raises:
            SourceError: the text is unavailable.
        """
        if self.literal:
            return self.source, {}
        corpus = read_named_corpus(self.source, self.settings)
        end = None if self.characters is None else self.begin + self.characters
        known = {"name": corpus.name, "sha256": corpus.sha256, "characters": corpus.characters}
        return corpus.documents[0][self.begin : end], known

    def held_out_of(self, characters: int) -> int:
        """Returns how many of `characters`, counted from the end, are held out."""
        return held_out_characters(characters, self.held_out) if self.held_out else 0


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One experiment, as published.

    Attributes:
        summary: the model in a few words.
        lesson: what the experiment teaches, in one or two sentences.
        text: the text to train on.
        batching: how the text is cut into batches.
        model: the network's shape, or a class from `tutorial_models`.
        classes: number of outputs of a tutorial model if it is smaller than the vocabulary.
        modify: function that changes the initial network before training.
        phases: numbers of epochs and learning rates. The optimizer keeps its state between phases.
        epsilon: epsilon of Adam.
        seeds: number of runs with different seeds. Several seeds run together in one compiled program.
        checkpoints: checkpoints to keep in addition to those needed for resuming.
        showcases: what to show of the trained model.
        notes: remarks for the reader.
        accuracy_at_least: what the median accuracy of a full run should reach.
        keras: entry of `keras.json`, measured with Keras 3, that the losses should agree with.
        beats: experiments of the study that this one should beat on held-out text in less time.
        own: whether charloom added the experiment, so that nothing was published.
        quick: fields that differ in a quick run.
        default: fields that differ in a default run.
        variants: fields that differ in further runs of the experiment, by name.
    """

    summary: str
    lesson: str
    text: StudyText
    batching: Batching
    model: NetworkSettings | type[SharedLayers]
    classes: int | None = None
    modify: Callable[[Network], Network] | None = None
    phases: tuple[Phase, ...]
    epsilon: float = 1e-7
    seeds: int = 1
    checkpoints: tuple[CheckpointRule, ...] = ()
    showcases: tuple["Showcase", ...] = ()
    notes: tuple[str, ...] = ()
    accuracy_at_least: float | None = None
    keras: str | None = None
    beats: tuple[str, ...] = ()
    own: bool = False
    quick: Mapping[str, Any] = field(default_factory=dict)
    default: Mapping[str, Any] = field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def cut(self, mode: Mode) -> "Experiment":
        """Returns the experiment with the changes for `mode`. A quick run has no variants."""
        if mode == "full":
            return self
        return replace(self, **self.default) if mode == "default" else replace(self, **self.quick, variants={})

    def variant(self, name: str) -> "Experiment":
        """Returns the variant `name`, which has no variants."""
        return replace(self, **{"variants": {}, **self.variants[name]})

    @property
    def epochs(self) -> int:
        """The number of epochs of all phases."""
        return sum(phase.epochs for phase in self.phases)

    def initial(self, vocabulary: Vocabulary, rng: np.random.Generator | None) -> SequenceModel:
        """Returns the model with initial weights, or with zeros if `rng` is None."""
        if isinstance(self.model, NetworkSettings):
            network = Network.init(self.model, vocabulary.size, vocabulary.start_id, rng)
            return self.modify(network) if self.modify else network
        return self.model.init(vocabulary.size, self.classes or vocabulary.size, rng)


@dataclass(frozen=True, kw_only=True)
class Study:
    """Experiments that were published together.

    Attributes:
        title: title of the study.
        note: remark that concerns all experiments.
        experiments: experiments by name, in the order of the publication.
    """

    title: str
    note: str = ""
    experiments: Mapping[str, Experiment]


@cache
def published() -> dict[str, Any]:
    """Returns the published figures by study and experiment, with their sources."""
    return _read_json("published.json")


@cache
def keras_figures() -> dict[str, Any]:
    """Returns figures of a current Keras for some experiments, measured by `python -m benchmarks.keras_tutorials`."""
    return _read_json("keras.json")


def _read_json(name: str) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads((files("charloom.studies") / name).read_text("utf-8"))
    return figures
