"""A model that has read a prompt, and samples any number of texts from there."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from charloom.errors import SettingError
from charloom.inference import DecoderState, NativeDecoderState, TextStream, generate_tokens, split_streams
from charloom.models import Network
from charloom.printable import quoted
from charloom.settings import SamplingSettings, require_count, require_seed

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
        stream_indexes: Sequence[int],
        stop: str | None = None,
    ) -> list[TextStream]:
        """Returns what `stream` returns, for each of `stream_indexes`.

        The texts are sampled in parallel, while any of them is read. Each text is the same as if it were sampled alone.
        """
        length, seed = require_count("length", length), require_seed(seed)
        if stop is not None and not isinstance(stop, str):
            raise SettingError("stop", f"must be a string, got {quoted(stop)}")
        if stop == "":
            raise SettingError("stop", "must not be empty")
        stop = self.model.normalize(stop) if stop else None  # in characters that the model can generate
        blocks = generate_tokens(self.network, self.state, length, settings, seed, stream_indexes)
        vocabulary, streams = self.model.vocabulary, split_streams(blocks, len(stream_indexes))
        return [TextStream(stream, vocabulary.decoder(), stop, vocabulary.end_id) for stream in streams]
