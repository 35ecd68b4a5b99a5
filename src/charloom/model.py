"""TextModel: a network with its vocabulary. What a user holds, and what a model file is."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Integer

from charloom import __version__
from charloom.arguments import choice, whole_number
from charloom.arguments import text as checked_text
from charloom.artifacts import Output, OutputKind, made_with, read_tensor_file, tensor_file_bytes
from charloom.description import summary
from charloom.errors import (
    ModelFileError,
    RecordError,
    SettingError,
    TextTypeError,
    TooShortError,
    UnknownCharacterError,
)
from charloom.inference import (
    Next,
    Score,
    Scorer,
    TextCarry,
    prediction,
    read_on,
    read_prompt,
    state_vector,
    unit_outputs,
)
from charloom.model_metadata import FORMAT_VERSION, ModelMetadata, model_metadata
from charloom.models import Dense, Network, named_tensors, restored
from charloom.printable import one_line, quoted
from charloom.prompted_model import PromptedModel
from charloom.settings import (
    MAX_COUNT,
    NetworkSettings,
    SamplingSettings,
    TextSettings,
    UnknownPolicy,
    require_count,
    require_path,
)
from charloom.text import Vocabulary, normalize, record_end_in

MODEL = OutputKind(
    "model",
    "model.safetensors",
    "model",
    lambda path: made_with(path, "format_version"),  # a checkpoint has another
    keeps_earlier=True,
)
"""Files that may be replaced by a model's."""


@dataclass(frozen=True)
class TextModel:
    """A trained model of a text.

    Attributes:
        network: the weights.
        vocabulary: which characters or bytes its ids stand for.
        settings: the network's shape.
        text: how the texts are read that it was trained on.
        trained_on: `name`, `sha256` and `characters` of the text.
        training: how it was trained and what came of it, as JSON values.
        format_version: of the file that it was loaded from; `save` writes the newest.
    """

    network: Network = field(repr=False)
    vocabulary: Vocabulary = field(repr=False)
    settings: NetworkSettings
    text: TextSettings = TextSettings()
    trained_on: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict, repr=False)
    format_version: int = FORMAT_VERSION

    def generate(
        self,
        prompt: str = "",
        length: int = 400,
        *,
        temperature: float = SamplingSettings.temperature,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        stop: str | None = None,
        unknown: UnknownPolicy = "error",
        window: int | None = None,
    ) -> str:
        """Returns `prompt` and up to `length` new characters after it; a record ends earlier, where its end comes.

        The text begins as if after a newline, or as a record of its own, so that an empty prompt is allowed. The same
        arguments give the same text on the same machine.

        Args:
            temperature: below 1 safer, above 1 bolder, 0 always the most likely character.
            top_k: choose among the k most likely characters only.
            top_p: choose among the fewest characters whose probabilities reach p together.
            seed: of the choices.
            stop: end before the first occurrence of this text.
            unknown: what becomes of characters of the prompt that the model does not know.
            window: read the last `window` characters anew for each character, from a zero state, instead of carrying
                the state on; None for what the model was trained with.

        Raises:
            SettingError: an argument is out of its range.
            UnknownCharacterError: the prompt has an unknown character and `unknown` is "error".
            TooShortError: the prompt does not fill the window.
        """
        settings = SamplingSettings(temperature=temperature, top_k=top_k, top_p=top_p)
        prompted = self.prompted(prompt, unknown, window)
        return prompted.prompt + "".join(prompted.stream(length, settings, seed=seed, stop=stop))

    def score(
        self, text: str | bytes, *, prompt: str = "", unknown: UnknownPolicy = "error", top_predictions: int = 0
    ) -> Score:
        """Returns what each character of `text` costs, read from the beginning of a text; a record's end is one more.

        Args:
            text: characters; for a model of bytes, bytes or what UTF-8 makes them of. A record may have its end.
            prompt: is read before it, and not scored.
            unknown: what becomes of characters that the model does not know; those left out are not scored.
            top_predictions: how many of the most likely characters are wanted for each place.

        Raises:
            UnknownCharacterError: a character is unknown and `unknown` is "error".
            RecordError: the model is of records, and `text` is more than one.
        """
        top_predictions = whole_number("top_predictions", top_predictions, 0, MAX_COUNT)
        scorer = self.scorer(prompt, unknown)
        return scorer.begin(top_predictions).read(scorer.record(self._seen("text", text)))[0]

    def score_many(
        self, texts: Iterable[str | bytes], *, prompt: str = "", unknown: UnknownPolicy = "error"
    ) -> list[Score]:
        """Returns what `score` returns for each of `texts`, which are read side by side, many times as fast.

        Raises:
            TextTypeError: `texts` is one text, or an element is none, such as NaN.
            UnknownCharacterError, RecordError: as of `score`; the error says which text it is.
        """
        if isinstance(texts, str | bytes | bytearray) or not isinstance(texts, Iterable):
            raise TextTypeError(
                f"texts must be a list of texts, got {quoted(texts, 60)}. Put one text into a list, or call score."
            )
        scorer, records = self.scorer(prompt, unknown), []
        for index, text in enumerate(texts):
            seen = self._seen(f"texts[{index}]", text)
            try:
                records.append(scorer.record(seen))
            except RecordError as error:
                raise RecordError(f"texts[{index}]: {error}") from None
        try:
            return scorer.score(records)
        except UnknownCharacterError:
            for index, record in enumerate(records):
                try:
                    scorer.require_known(record)
                except UnknownCharacterError as error:
                    raise UnknownCharacterError(f"texts[{index}]: {error}") from None
            raise

    def _seen(self, name: str, text: str | bytes) -> str | bytes:
        text = checked_text(name, text, self.vocabulary.units)
        return text if isinstance(text, bytes) else self.normalize(text)

    def _prompt(self, prompt: str | bytes, name: str = "prompt") -> str:
        """Returns a prompt as characters, which for bytes that are not UTF-8 stand as lone surrogates."""
        prompt = checked_text(name, prompt, self.vocabulary.units)
        return prompt.decode("utf-8", "surrogateescape") if isinstance(prompt, bytes) else prompt

    def scorer(
        self, prompt: str = "", unknown: UnknownPolicy = "error", check: Callable[[], None] | None = None
    ) -> Scorer:
        """Returns what scores texts of this model's, for many of them.

        Args:
            prompt: is read before each of them, and not scored.
            unknown: what becomes of characters that the model does not know.
            check: is called every few milliseconds of reading; what it raises ends the reading.

        Raises:
            UnknownCharacterError: the prompt ends a record, or has an unknown character and `unknown` is "error".
        """
        choice("unknown", unknown, get_args(UnknownPolicy))
        prompt = self._prompt(prompt)
        self._require_open(prompt)
        return Scorer(
            self.network,
            self.vocabulary,
            self.text,
            prompt=self.normalize(prompt),
            unknown=unknown,
            check=check,
        )

    def next(self, text: str = "", carry: TextCarry | None = None) -> Next:
        """Returns how likely each character is to come next, and the state to go on from.

        Args:
            text: what has been read.
            carry: of an earlier `Next`, which `text` goes on from; None for the beginning of a text.

        Raises:
            SettingError: `carry` is of another model.
            UnknownCharacterError: `text` has a character that the model does not know.

        For a text as it is typed:

            found = model.next("th")
            found = model.next("e", found.carry)
            found.top(3)
        """
        if carry is None:
            window, token_ids = self.prompt_ids(self._prompt(text, "text"), "error", None)
            stream = read_prompt(self.network, token_ids, window)
        else:
            if not isinstance(carry, TextCarry):
                raise SettingError("carry", f"is the carry of an earlier `next`; got {type(carry).__name__}")
            text = self._prompt(text, "text")
            self._require_open(text)
            stream = read_on(self.network, carry.stream_of(self.network), self.vocabulary.encode(self.normalize(text)))
        units = self.vocabulary.units
        characters = self.vocabulary.characters if units == "chars" else bytes(range(256)).decode("latin-1")
        return prediction(self.network, stream, characters)

    def embed(self, text: str) -> np.ndarray:
        """Returns the state after `text` as a vector: the outputs of all layers, float32, of size layers × hidden."""
        window, token_ids = self.prompt_ids(self._prompt(text, "text"), "error", None)
        if window is not None:  # which is read again each time, and carries no state on
            return unit_outputs(self.network, token_ids[-window:], from_start=False)[-1]
        return state_vector(read_prompt(self.network, token_ids))

    def _repr_html_(self) -> str:
        """Returns what a notebook shows."""
        rows = (f"<tr><th>{escape(name)}</th><td>{escape(fact)}</td></tr>" for name, fact in summary(self).items())
        return f"<table>{''.join(rows)}</table>"

    @property
    def window(self) -> int | None:
        """The length of the windows that the model was trained on; None for a text read on and on."""
        return self.training.get("window")

    def prompted(self, prompt: str = "", unknown: UnknownPolicy = "error", window: int | None = None) -> PromptedModel:
        """Returns the model after it has read `prompt`, ready to write any number of texts from there."""
        window, token_ids = self.prompt_ids(prompt, unknown, window)
        network = self.sampling_network
        return PromptedModel(self, network, self.vocabulary.decode(token_ids), read_prompt(network, token_ids, window))

    def prompt_ids(
        self, prompt: str, unknown: UnknownPolicy = "error", window: int | None = None
    ) -> tuple[int | None, Integer[np.ndarray, " time"]]:
        """Returns the window that is read for each character, if any, and the prompt's ids.

        Raises:
            SettingError, UnknownCharacterError, TooShortError: as of `generate`.
        """
        if window is not None:
            window = require_count("window", window)
        window, prompt = window or self.window, self._prompt(prompt)
        self._require_open(prompt)
        token_ids = self.vocabulary.encode(self.normalize(prompt), unknown)
        if window is not None and len(token_ids) < window:
            raise TooShortError(
                f"the prompt has {len(token_ids)} characters, and a window of {window} is read for each new one: what "
                "is trained on windows has never seen a shorter text. Give a longer prompt."
            )
        return window, token_ids

    def _require_open(self, prompt: str) -> None:
        """Makes sure that `prompt` does not end a record."""
        end = record_end_in(self.normalize(prompt), self.text)
        if end is not None:
            raise UnknownCharacterError(
                f"the prompt has {end!r}, which ends a record. Give the beginning of one record."
            )

    @property
    def sampling_network(self) -> Network:
        """The network that texts are sampled from: it never chooses the character that stands for unknown ones."""
        unknown, head = self.vocabulary.unknown_id, self.network.head
        if self.text.min_count == 1 or unknown is None or not isinstance(head, Dense):
            return self.network
        bias = np.array(head.bias)
        bias[unknown] = -np.inf
        return replace(self.network, head=replace(head, bias=jnp.asarray(bias)))

    def normalize(self, text: str) -> str:
        """Returns `text` with newlines and case as in the text that the model was trained on."""
        if self.vocabulary.units == "bytes":
            return text
        return normalize(text, self.text)

    def unknown_characters(self, prompt: str) -> list[str]:
        """Returns the characters of `prompt` that the model does not know, in order."""
        return self.vocabulary.unknown_characters(self.normalize(prompt))

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Writes the model file, in one step: at every moment `path` is the old file or the new one, whole.

        Another model that stands there is kept as NAME.previous.safetensors; what is not a model is not replaced.

        Args:
            path: where to.
            force: whether another model is replaced without being kept.

        Raises:
            SettingError: `path` cannot be a file's name.
            OutputError: the file cannot be written; what stood there is as it was.
        """
        Output(require_path("path", path), MODEL, force=force).write(self.to_bytes())

    def to_bytes(self) -> bytes:
        """Returns what a model file holds."""
        units = self.vocabulary.units
        metadata = {
            "format_version": FORMAT_VERSION,
            "charloom_version": __version__,
            "model": asdict(self.settings),
            "vocabulary": {"units": units, "characters": self.vocabulary.characters}
            if units == "chars"
            else {"units": units},
            "text": {
                "lowercase": self.text.lowercase,
                "encoding": self.text.encoding,
                "delimiter": self.text.delimiter,
                "min_count": self.text.min_count,
            },
            "trained_on": dict(self.trained_on),
            "training": dict(self.training),
        }
        tensors = {name: np.asarray(tensor) for name, tensor in named_tensors(self.network).items()}
        return tensor_file_bytes(tensors, metadata)


def load(path: str | os.PathLike[str]) -> TextModel:
    """Returns the model in the file at `path`.

    Raises:
        ModelFileError: the file is missing, damaged, not charloom's, or of a version that this one does
            not read.
        SettingError: `path` cannot be a file's name.
    """
    path = require_path("model", path)
    tensors, metadata = read_tensor_file(path)
    found = model_metadata(metadata, path)
    try:
        network = _network(path, found, tensors)
    except SettingError as error:
        raise ModelFileError(
            f"{one_line(str(path))}: model.{error}. The file was changed after it was written."
        ) from error
    return TextModel(
        network, found.vocabulary, found.network, found.text, found.trained_on, found.training, found.format_version
    )


def _network(path: Path, found: ModelMetadata, tensors: Mapping[str, np.ndarray]) -> Network:
    # Shapes only: a file that promises a giant must not make us build one.
    vocabulary = found.vocabulary
    wanted = jax.eval_shape(lambda: Network.init(found.network, vocabulary.size, vocabulary.start_id, None))
    network = restored(wanted, tensors, path)
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise ModelFileError(
                f"{one_line(str(path))}: '{name}' has weights that are no numbers (NaN or infinity). Train it again: "
                "the training failed, or the file was changed."
            )
    return network
