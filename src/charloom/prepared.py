"""A model that has read a prompt, and writes any number of texts from there."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from charloom.errors import SettingError
from charloom.inference import NativeStream, Stream, Writing, lanes_of, write
from charloom.models import Network
from charloom.printable import quoted
from charloom.settings import SamplingSettings, require_count, require_seed

if TYPE_CHECKING:
    from charloom.model import TextModel


@dataclass(frozen=True)
class Prepared:
    """A model that has read a prompt.

    Attributes:
        model: the model.
        writer: the network as it writes.
        prompt: as the model read it, with newlines, case and unknown characters as it knows them.
        stream: the network's state after it.
    """

    model: "TextModel"
    writer: Network = field(repr=False)
    prompt: str
    stream: Stream | NativeStream = field(repr=False)

    def write(
        self,
        length: int,
        settings: SamplingSettings,
        *,
        seed: int,
        stream_index: int = 0,
        stop: str | None = None,
    ) -> Writing:
        """Returns an iterator over up to `length` new characters, in small pieces as they come.

        Args:
            seed: of the choices.
            stream_index: tells texts apart that are written with the same seed.
            stop: end before the first occurrence of this text.
        """
        (writing,) = self.write_many(length, settings, seed=seed, stream_indexes=[stream_index], stop=stop)
        return writing

    def write_many(
        self,
        length: int,
        settings: SamplingSettings,
        *,
        seed: int,
        stream_indexes: Sequence[int],
        stop: str | None = None,
    ) -> list[Writing]:
        """Returns what `write` does for each of `stream_indexes`; the texts are written side by side, as any is read.

        Each is the text that it would be alone.
        """
        length, seed = require_count("length", length), require_seed(seed)
        if stop is not None and not isinstance(stop, str):
            raise SettingError("stop", f"must be a text, got {quoted(stop)}")
        if stop == "":
            raise SettingError("stop", "must not be empty")
        stop = self.model.seen(stop) if stop else None  # in the model's own letters
        blocks = write(self.writer, self.stream, length, settings, seed, stream_indexes)
        vocabulary, lanes = self.model.vocabulary, lanes_of(blocks, len(stream_indexes))
        return [Writing(lane, vocabulary.decoder(), stop, vocabulary.end_id) for lane in lanes]
