"""TextModel, a network with its vocabulary, and its file."""

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
from charloom.artifacts import Output, OutputKind, has_metadata_field, read_tensor_file, tensor_file_bytes
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
    read_prompt,
    read_tokens,
    state_vector,
    unit_outputs,
)
from charloom.model_metadata import FORMAT_VERSION, ModelMetadata, model_metadata
from charloom.models import Dense, Network, named_tensors, restore_tensors
from charloom.printable import one_line, quoted
from charloom.prompted_model import PromptedModel
from charloom.settings import (
    MAX_COUNT,
    NetworkSettings,
    SamplingSettings,
    TextSettings,
    UnknownPolicy,
    WeightsPrecision,
    require_count,
    require_path,
)
from charloom.text import Vocabulary, normalize, record_end_in

MODEL = OutputKind(
    "model",
    "model.safetensors",
    "model",
    lambda path: has_metadata_field(path, "format_version"),  # checkpoints have another key
    keeps_earlier=True,
)
"""The kind of file that a model may replace."""


@dataclass(frozen=True)
class TextModel:
    """A trained language model, immutable.

    Attributes:
        network: The weights, an Equinox module.
        vocabulary: The characters or bytes that token ids stand for.
        settings: The network's shape.
        text: How the training text was read: case, encoding, records.
        trained_on: `name`, `sha256` and `characters` of the training text.
        training: The training settings, the learning curve and the results, as JSON values.
        format_version: Version of the file that the model was loaded from. `save` writes the newest version.
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
        weights: WeightsPrecision = "float32",
    ) -> str:
        """Returns `prompt` and up to `length` new characters.

        The prompt may be empty, because a text starts as if after a newline. A model of records starts a new record and
        stops at its end. The same arguments give the same text on the same machine.

        Args:
            prompt: Text that the new characters continue. The returned text has it as the model reads it, for example
                in lower case.
            length: Most characters to generate (bytes for a model of bytes).
            temperature: Divides the logits before sampling. Below 1 likely characters become likelier. 0 always takes
                the most likely one.
            top_k: Sample from the k most likely characters. None means all.
            top_p: Sample from the fewest characters whose probabilities add up to this. None means all.
            seed: Random seed of the sampler, from 0 to 2**63 - 1.
            stop: Text before whose first occurrence generation stops.
            unknown: What happens to characters of the prompt that the model does not know: "error" raises an error,
                "skip" leaves them out, and "replace" reads `vocabulary.replacement`.
            window: Read the last `window` characters again for each new character, from a zero state, instead of
                carrying the state. None means as the model was trained.
            weights: Precision in which the weights are packed. "int8" is several times as fast, gives the same text on
                all processors, and changes the probabilities a little. "bfloat16" is between it and "float32".

        Raises:
            SettingError: An argument is out of its range.
            UnknownCharacterError: The prompt has an unknown character and `unknown` is "error", or it ends a record.
            TooShortError: The prompt is shorter than the window.
            TextTypeError: The prompt is not a text.
        """
        settings = SamplingSettings(temperature=temperature, top_k=top_k, top_p=top_p)
        prompted = self.prompted(prompt, unknown, window, weights)
        return prompted.prompt + "".join(prompted.stream(length, settings, seed=seed, stop=stop))

    def score(
        self, text: str | bytes, *, prompt: str = "", unknown: UnknownPolicy = "error", top_predictions: int = 0
    ) -> Score:
        """Returns how surprising each character of `text` is to the model.

        Every character is scored, the first one too. For a model of records, the end of the record is scored as well
        and counts as one character.

        Args:
            text: The text, read from its beginning. A model of bytes takes bytes, or a str that it reads as UTF-8.
            prompt: Text that the model reads first, without scoring it.
            unknown: What happens to characters that the model does not know, as in `generate`. Skipped characters are
                not scored.
            top_predictions: Number of most likely tokens to return for each position.

        Returns:
            A `Score`. Its `nats` and `bits` are float32 arrays with one number per character.

        Raises:
            UnknownCharacterError: A character is unknown and `unknown` is "error".
            RecordError: The model is of records, and `text` contains more than one.
            TextTypeError: `text` is not a text.
            SettingError: Another argument is out of its range.
        """
        top_predictions = whole_number("top_predictions", top_predictions, 0, MAX_COUNT)
        scorer = self.scorer(prompt, unknown)
        return scorer.begin(top_predictions).score(scorer.with_record_end(self._seen("text", text)))[0]

    def score_many(
        self, texts: Iterable[str | bytes], *, prompt: str = "", unknown: UnknownPolicy = "error"
    ) -> list[Score]:
        """Returns the score of each text, in order.

        The model reads many texts in parallel, which is many times as fast as calling `score` in a loop.

        Args:
            texts: The texts, for example a list or a column of a table.
            prompt: Text that the model reads before each of them, without scoring it.
            unknown: What happens to characters that the model does not know, as in `score`.

        Raises:
            TextTypeError: `texts` is a single text, or one of its elements is not a text, such as NaN.
            UnknownCharacterError: As in `score`. The message has the position of the text, such as `texts[3]`.
            RecordError: The same.
        """
        if isinstance(texts, str | bytes | bytearray) or not isinstance(texts, Iterable):
            raise TextTypeError(
                f"texts must be a list of strings, got {quoted(texts, 60)}. Put one text into a list, or call score."
            )
        scorer, records = self.scorer(prompt, unknown), []
        for index, text in enumerate(texts):
            seen = self._seen(f"texts[{index}]", text)
            try:
                records.append(scorer.with_record_end(seen))
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
        """Returns a prompt as a str, in which lone surrogates stand for bytes that are not UTF-8."""
        prompt = checked_text(name, prompt, self.vocabulary.units)
        return prompt.decode("utf-8", "surrogateescape") if isinstance(prompt, bytes) else prompt

    def scorer(
        self, prompt: str = "", unknown: UnknownPolicy = "error", check: Callable[[], None] | None = None
    ) -> Scorer:
        """Returns a scorer, which scores any number of texts after the same prompt.

        Args:
            prompt: Text that the model reads before each text, without scoring it.
            unknown: What happens to characters that the model does not know, as in `score`.
            check: Called every few milliseconds while the model reads. An exception that it raises stops the scoring.

        Raises:
            UnknownCharacterError: The prompt has an unknown character and `unknown` is "error", or it ends a record.
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
        """Returns the distribution of the next character, and the state to continue from.

        Args:
            text: The text so far, or its continuation if `carry` is given.
            carry: State after an earlier text, from `Next.carry`. None starts a new text.

        Raises:
            SettingError: `carry` belongs to another model.
            UnknownCharacterError: `text` has a character that the model does not know, or it ends a record.
            TooShortError: The model reads windows, and `text` is shorter than one.
            TextTypeError: `text` is not a text.

        Follow a text while it is typed:

            found = model.next("th")
            found = model.next("e", found.carry)
            found.top(3)
        """
        if carry is None:
            window, token_ids = self.prompt_ids(self._prompt(text, "text"), "error", None)
            state = read_prompt(self.network, token_ids, window)
        else:
            if not isinstance(carry, TextCarry):
                raise SettingError("carry", f"must be the carry of an earlier `next`, got {type(carry).__name__}")
            text = self._prompt(text, "text")
            self._require_open(text)
            state = read_tokens(
                self.network, carry.state_for(self.network), self.vocabulary.encode(self.normalize(text))
            )
        units = self.vocabulary.units
        characters = self.vocabulary.characters if units == "chars" else bytes(range(256)).decode("latin-1")
        return prediction(self.network, state, characters)

    def embed(self, text: str) -> np.ndarray:
        """Returns the network's state after `text` as a vector, for example to compare or cluster texts.

        Args:
            text: The text, read from its beginning.

        Returns:
            The outputs of all layers, the first layer first: float32, of shape `(layers * hidden,)`.

        Raises:
            UnknownCharacterError: `text` has a character that the model does not know, or it ends a record.
            TooShortError: The model reads windows, and `text` is shorter than one.
            TextTypeError: `text` is not a text.
        """
        window, token_ids = self.prompt_ids(self._prompt(text, "text"), "error", None)
        if window is not None:  # a window is read from a zero state each time
            return unit_outputs(self.network, token_ids[-window:], from_start=False)[-1]
        return state_vector(read_prompt(self.network, token_ids))

    def _repr_html_(self) -> str:
        """Returns an HTML table of the model's facts, which notebooks show."""
        rows = (f"<tr><th>{escape(name)}</th><td>{escape(fact)}</td></tr>" for name, fact in summary(self).items())
        return f"<table>{''.join(rows)}</table>"

    @property
    def window(self) -> int | None:
        """The length of the windows that the model was trained on. None if it carries its state through the text."""
        return self.training.get("window")

    def prompted(
        self,
        prompt: str = "",
        unknown: UnknownPolicy = "error",
        window: int | None = None,
        weights: WeightsPrecision = "float32",
    ) -> PromptedModel:
        """Returns the model after it has read `prompt`, ready to generate any number of texts from there.

        Use `PromptedModel.stream` to receive a text while it is generated.

        Args:
            prompt: The text to read, as in `generate`.
            unknown: As in `generate`.
            window: As in `generate`.
            weights: As in `generate`.

        Raises:
            SettingError: `unknown` or `window` is out of its range, or the model cannot have these `weights`.
            UnknownCharacterError: As in `generate`.
            TooShortError: As in `generate`.
        """
        choice("weights", weights, get_args(WeightsPrecision))
        window, token_ids = self.prompt_ids(prompt, unknown, window)
        network = self.sampling_network
        state = read_prompt(network, token_ids, window, weights)
        return PromptedModel(self, network, self.vocabulary.decode(token_ids), state)

    def prompt_ids(
        self, prompt: str, unknown: UnknownPolicy = "error", window: int | None = None
    ) -> tuple[int | None, Integer[np.ndarray, " time"]]:
        """Returns the length of the window to read for each character, or None, and the prompt's token ids.

        Raises:
            SettingError: `unknown` or `window` is out of its range.
            UnknownCharacterError: As in `generate`.
            TooShortError: As in `generate`.
        """
        if window is not None:
            window = require_count("window", window)
        window, prompt = window or self.window, self._prompt(prompt)
        self._require_open(prompt)
        token_ids = self.vocabulary.encode(self.normalize(prompt), unknown)
        if window is not None and len(token_ids) < window:
            raise TooShortError(
                f"the prompt has {len(token_ids)} characters, but the model reads a window of {window} for each new "
                "character and has never seen a shorter text. Give a longer prompt."
            )
        return window, token_ids

    def _require_open(self, prompt: str) -> None:
        """Raises `UnknownCharacterError` if `prompt` ends a record."""
        end = record_end_in(self.normalize(prompt), self.text)
        if end is not None:
            raise UnknownCharacterError(
                f"the prompt contains {end!r}, which ends a record. Give the beginning of one record."
            )

    @property
    def sampling_network(self) -> Network:
        """The network to sample from. It never samples the character that replaces rare ones (`--min-count`)."""
        unknown, head = self.vocabulary.unknown_id, self.network.head
        if self.text.min_count == 1 or unknown is None or not isinstance(head, Dense):
            return self.network
        bias = np.array(head.bias)
        bias[unknown] = -np.inf
        return replace(self.network, head=replace(head, bias=jnp.asarray(bias)))

    def normalize(self, text: str) -> str:
        """Returns `text` with line ends and case changed as in the training text."""
        if self.vocabulary.units == "bytes":
            return text
        return normalize(text, self.text)

    def unknown_characters(self, prompt: str) -> list[str]:
        """Returns the characters of `prompt` that the model does not know, each occurrence, in order."""
        return self.vocabulary.unknown_characters(self.normalize(prompt))

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Writes the model to a file.

        The file appears in one step: at every moment `path` is the complete old file or the complete new one. charloom
        keeps an earlier model as NAME.previous.safetensors. It never replaces a file that is not a model.

        Args:
            path: The file to write.
            force: Replace an earlier model without keeping it.

        Raises:
            SettingError: `path` cannot be the name of a file.
            OutputError: The file cannot be written. An earlier file is unchanged.
        """
        Output(require_path("path", path), MODEL, force=force).write(self.to_bytes())

    def to_bytes(self) -> bytes:
        """Returns the content of a model file."""
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
    """Returns the model in a file.

    Loading never runs code from the file, so files from others are safe to load.

    Args:
        path: A file that `TextModel.save` or `charloom train` wrote.

    Raises:
        ModelFileError: The file is missing, damaged, not a charloom model, or of a version that this one does not read.
        SettingError: `path` cannot be the name of a file.
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
    # Only shapes are computed: a damaged file must not make charloom allocate a huge network.
    vocabulary = found.vocabulary
    wanted = jax.eval_shape(lambda: Network.init(found.network, vocabulary.size, vocabulary.start_id, None))
    network = restore_tensors(wanted, tensors, path)
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise ModelFileError(
                f"{one_line(str(path))}: '{name}' has weights that are NaN or infinite. Train the model again: its "
                "training failed, or the file was changed."
            )
    return network
