"""The settings of a run, also as the JSON values that its folder stores."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from charloom.cell_facts import CELL_FACTS
from charloom.errors import SettingError
from charloom.model import TextModel
from charloom.settings import NetworkSettings, TextSettings, TrainingSettings
from charloom.text import CORPORA


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """The settings of a run.

    Attributes:
        sources: files, folders, glob patterns, "-" or names from `charloom corpora`.
        out: the model file, written at each improvement; None keeps the model in memory.
        text: how to read the sources.
        network: the shape of the network.
        training: how to train it.
        folder: the folder for checkpoints and metrics; None for none.
        cache: the folder for the encoded text; None keeps all but large texts in memory.
        resume: whether to resume the run in `folder`.
        text_given: whether the `sources` of a resumed run were given again, instead of read from its folder.
        samples: whether to yield a short sample now and then.
        report: whether the caller will write a report next to the model, and needs a path for it.
        out_is_default: whether `out` is a default, so that the model gets another name if that one is taken.
        force: whether to replace an earlier model at `out` without keeping it.
        repeated: a model whose run to repeat; the text must be its training text.
        repeated_file: the file of that model, which the new one must not replace.
        given: names of the network and training settings that were given; a budget picks the others.
    """

    sources: Sequence[str | os.PathLike[str]]
    out: Path | None = None
    text: TextSettings = TextSettings()
    network: NetworkSettings = NetworkSettings()
    training: TrainingSettings = TrainingSettings()
    folder: Path | None = None
    cache: Path | None = None
    resume: bool = False
    text_given: bool = False
    samples: bool = False
    report: bool = False
    out_is_default: bool = False
    force: bool = False
    repeated: TextModel | None = None
    repeated_file: Path | None = None
    given: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.training.weight_dropout and not CELL_FACTS[self.network.cell].has_recurrent_kernel:
            raise SettingError("weight_dropout", f"applies to recurrent weights; {self.network.cell} has none")
        if self.cache is not None and self.text.delimiter is not None:
            raise SettingError("cache", "applies to continuous text; records are kept in memory")
        if (
            "state_reset_probability" in self.given
            and self.training.state_reset_probability
            and self.text.delimiter is not None
        ):
            raise SettingError(
                "state_reset_probability", "must be 0 for records, because each record starts from the zero state"
            )

    def with_absolute_paths(self) -> "RunSettings":
        """Returns the same settings with absolute paths, which are valid in any working folder."""
        return replace(
            self,
            sources=tuple(_absolute_source(os.fspath(source)) for source in self.sources),
            out=None if self.out is None else Path(os.path.abspath(self.out)),
            cache=None if self.cache is None else Path(os.path.abspath(self.cache)),
        )

    def as_json(self) -> dict[str, Any]:
        """Returns the settings that change the result, and the paths, as JSON values."""
        return {
            "sources": [os.fspath(source) for source in self.sources],
            "out": None if self.out is None else str(self.out),
            "cache": None if self.cache is None else str(self.cache),
            "text": asdict(self.text),
            "network": asdict(self.network),
            "training": asdict(self.training),
        }


def _absolute_source(source: str) -> str:
    is_name = source == "-" or (source in CORPORA and not os.path.lexists(source))
    return source if is_name or not source else os.path.abspath(source)
