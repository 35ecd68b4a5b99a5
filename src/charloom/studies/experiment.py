"""What a study and its experiments are: data, which one training code runs."""

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
    """The text that a study learns from.

    Attributes:
        source: the name of a corpus, or the text itself if `literal`.
        literal: whether `source` is the text.
        settings: how it is read.
        begin: the first character that is used.
        characters: how many are used from there; None for all.
        first: how many of these are left in a cut, with the vocabulary of all; None for all.
        held_out: characters at the end that are not trained on; below 1 a share of the text.
    """

    source: str
    literal: bool = False
    settings: TextSettings = TextSettings()
    begin: int = 0
    characters: int | None = None
    first: int | None = None
    held_out: float = 0

    def read(self) -> tuple[str | bytes, dict[str, Any]]:
        """Returns the text, and its name, SHA-256 and length as a model file keeps them.

        Raises:
            SourceError: the text cannot be had.
        """
        if self.literal:
            return self.source, {}
        corpus = read_named_corpus(self.source, self.settings)
        end = None if self.characters is None else self.begin + self.characters
        known = {"name": corpus.name, "sha256": corpus.sha256, "characters": corpus.characters}
        return corpus.documents[0][self.begin : end], known

    def held_out_of(self, characters: int) -> int:
        """Returns how many of the last of `characters` are held out."""
        return held_out_characters(characters, self.held_out) if self.held_out else 0


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One experiment, as published.

    Attributes:
        summary: the model in a few words.
        lesson: what the experiment teaches, in a sentence.
        text: what it learns from.
        batching: how the text is cut into what a step reads.
        model: the network's shape, or a class of the tutorials' own models.
        classes: outputs of a tutorial's model where they are fewer than the characters.
        modify: changes a fresh network before it is trained.
        phases: epochs and rates, with the optimizer's state kept between them.
        epsilon: Adam's.
        seeds: runs of the experiment, side by side in one compiled program where there are several.
        checkpoints: what is kept of each epoch, beside what resuming needs.
        showcases: what is shown of the trained model.
        notes: what a reader should know of it, a sentence each.
        accuracy_at_least: what the median accuracy of an uncut run should reach.
        keras: the entry of `keras.json` that the losses should agree with: Keras 3's on the same experiment.
        beats: experiments of the study that this one should beat on held-out text, in less time.
        own: whether the experiment is ours, and nothing was published.
        quick: fields that are other in a quick run.
        default: fields that are other unless the run is a full one.
        variants: fields that are other in further runs of the experiment, by name.
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
        """Returns the experiment as a run in `mode` runs it. A quick one has no variants."""
        if mode == "full":
            return self
        return replace(self, **self.default) if mode == "default" else replace(self, **self.quick, variants={})

    def variant(self, name: str) -> "Experiment":
        """Returns the variant `name`, itself without variants."""
        return replace(self, **{"variants": {}, **self.variants[name]})

    @property
    def epochs(self) -> int:
        """Epochs of all phases."""
        return sum(phase.epochs for phase in self.phases)

    def initial(self, vocabulary: Vocabulary, rng: np.random.Generator | None) -> SequenceModel:
        """Returns the model with fresh weights, or without `rng` with zeros."""
        if isinstance(self.model, NetworkSettings):
            network = Network.init(self.model, vocabulary.size, vocabulary.start_id, rng)
            return self.modify(network) if self.modify else network
        return self.model.init(vocabulary.size, self.classes or vocabulary.size, rng)


@dataclass(frozen=True, kw_only=True)
class Study:
    """Experiments that were published together.

    Attributes:
        title: of the study.
        note: what a reader should know of all its experiments.
        experiments: the experiments by name, in the order of the publication.
    """

    title: str
    note: str = ""
    experiments: Mapping[str, Experiment]


@cache
def published() -> dict[str, Any]:
    """Returns the published figures, by study and experiment, with their sources."""
    return _read_json("published.json")


@cache
def keras_figures() -> dict[str, Any]:
    """Returns what today's Keras came to on some experiments, as `python -m benchmarks.keras_tutorials` measured it."""
    return _read_json("keras.json")


def _read_json(name: str) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads((files("charloom.studies") / name).read_text("utf-8"))
    return figures
