"""A model that has read a prompt, and samples any number of texts from there."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool

from charloom.errors import SettingError
from charloom.inference import DecoderState, NativeDecoderState, ParallelTexts, StopDetector, TextStream
from charloom.models import Network
from charloom.printable import quoted
from charloom.settings import SamplingSettings, require_count, require_seed
from charloom.text import Vocabulary

if TYPE_CHECKING:
    from charloom.model import TextModel


@dataclass(frozen=True)
class PromptedModel:
    """A model that has read a prompt.

    Attributes:
        model: the model.
        network: the network that samples.
        prompt: the prompt as the model read it, after normalization and the policy for unknown characters.
        state: the network's state after the prompt.
    """

    model: "TextModel"
    network: Network = field(repr=False)
    prompt: str
    state: DecoderState | NativeDecoderState = field(repr=False)

    def stream(
        self,
        length: int,
        settings: SamplingSettings,
        *,
        seed: int,
        stream_index: int = 0,
        stop: str | None = None,
    ) -> TextStream:
        """Returns an iterator over up to `length` new characters, in small pieces as they are generated.

        Args:
            length: the maximum number of new characters.
            settings: the sampling settings.
            seed: the random seed.
            stream_index: the index of this text among those with the same seed.
            stop: a text to stop before.
        """
        (text,) = self.stream_many(length, settings, seed=seed, stream_indexes=[stream_index], stop=stop)
        return text

    def stream_many(
        self,
        length: int,
        settings: SamplingSettings,
        *,
        seed: int,
        stream_indexes: Iterable[int],
        stop: str | None = None,
        before_generating: Callable[[], None] = lambda: None,
    ) -> Iterator[TextStream]:
        """Returns an iterator over what `stream` returns, for each of `stream_indexes`. There may be any number.

        The texts are sampled in parallel, while any of them is read. Each text is the same as if it were sampled alone.

        Args:
            length: as in `stream`.
            settings: as in `stream`.
            seed: as in `stream`.
            stream_indexes: the indexes of the texts among those with the same seed.
            stop: as in `stream`.
            before_generating: called before each block of some milliseconds, for example to flush what was printed.
        """
        length, seed = require_count("length", length), require_seed(seed)
        if stop is not None and not isinstance(stop, str):
            raise SettingError("stop", f"must be a string, got {quoted(stop)}")
        if stop == "":
            raise SettingError("stop", "must not be empty")
        stop = self.model.normalize(stop) if stop else None  # in characters that the model can generate
        vocabulary, stops, end_id = self.model.vocabulary, (stop,) if stop else (), self.model.vocabulary.end_id
        return ParallelTexts(
            self.network,
            self.state,
            length,
            settings,
            seed=seed,
            stream_indexes=stream_indexes,
            end_id=end_id,
            new_stop_detector=lambda: StopDetector(vocabulary.decoder(), stops, end_id),
            may_end=_may_end(vocabulary, stop),
            before_generating=before_generating,
        )


def _may_end(vocabulary: Vocabulary, stop: str | None) -> Bool[np.ndarray, " vocab"]:
    """Returns which tokens can be the last one of a record or of `stop`."""
    found = np.zeros(vocabulary.size, bool)
    if vocabulary.end_id is not None:
        found[vocabulary.end_id] = True
    if stop and vocabulary.units == "chars":
        found[vocabulary.encode(stop[-1], "skip")] = True
    elif stop and stop[-1] == "\ufffd":  # stands for bytes that are not UTF-8, which any byte may complete
        found[:] = True
    elif stop:
        found[stop[-1].encode("utf-8", "surrogatepass")[-1]] = True
    return found
