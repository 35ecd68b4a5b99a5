"""What a run is asked for, and the same as JSON values, which its folder keeps."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from charloom.errors import SettingError
from charloom.model import TextModel
from charloom.settings import NetworkSettings, TextSettings, TrainingSettings
from charloom.text import CORPORA


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """A whole run.

    Attributes:
        sources: files, folders, glob patterns, "-" or names of corpora.
        out: the model file, written at each improvement; None keeps the model in memory.
        text: how the sources are read.
        network: the shape of what is trained.
        training: how.
        folder: for checkpoints and metrics; None for none.
        cache: where the text is kept encoded, to be read from there; None holds all but large texts in memory.
        resume: whether `folder` holds this run, to be resumed.
        text_given: whether the `sources` of a resumed run are not those in its folder, but were given again.
        samples: whether to write a short sample now and then.
        report: whether the caller will write a page about the model beside it, whose place is to be found.
        out_is_default: whether nobody asked for `out`, so that a model goes beside what stands there.
        force: whether an earlier model at `out` is replaced without being kept.
        repeated: a model whose run is made again: the text must be its own.
        given: names of the network's and of training's settings that somebody chose; with a budget the others are
            picked.
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
    given: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.cache is not None and self.text.delimiter is not None:
            raise SettingError("cache", "is for a text that goes on; records are held in memory")
        if (
            "state_reset_probability" in self.given
            and self.training.state_reset_probability
            and self.text.delimiter is not None
        ):
            raise SettingError(
                "state_reset_probability", "must be 0 for records: each is read from its beginning, from zero"
            )

    def from_anywhere(self) -> "RunSettings":
        """Returns the same settings with paths that hold in any working folder."""
        return replace(
            self,
            sources=tuple(_from_anywhere(os.fspath(source)) for source in self.sources),
            out=None if self.out is None else Path(os.path.abspath(self.out)),
            cache=None if self.cache is None else Path(os.path.abspath(self.cache)),
        )

    def as_json(self) -> dict[str, Any]:
        """Returns the settings as JSON values, the folder and what is shown apart."""
        return {
            "sources": [os.fspath(source) for source in self.sources],
            "out": None if self.out is None else str(self.out),
            "cache": None if self.cache is None else str(self.cache),
            "text": asdict(self.text),
            "network": asdict(self.network),
            "training": asdict(self.training),
        }


def _from_anywhere(source: str) -> str:
    is_name = source == "-" or (source in CORPORA and not os.path.lexists(source))
    return source if is_name or not source else os.path.abspath(source)
