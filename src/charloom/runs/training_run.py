"""A training run: sources in, events on the way, the best model in a file at the end."""

import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType

import jax

from charloom.artifacts import require_writable
from charloom.data import Lanes, TokenStream, ordered_pass
from charloom.errors import CharloomError, OutputError, SettingError
from charloom.inference import score_blocks
from charloom.model import TextModel
from charloom.models import Network
from charloom.runs.fit import fit_lanes, split_validation
from charloom.settings import CellName, NetworkSettings, TextSettings, TrainingSettings
from charloom.text import Corpus, Vocabulary, read_corpus
from charloom.training import (
    Evaluation,
    Event,
    Notice,
    Sample,
    Saved,
    Stopped,
    default_updates,
    follow,
    root_key,
    train_network,
)
from charloom.units import finite_or_none

_SAMPLE_LENGTH = 160
_SAMPLE_SECONDS = 15.0


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """A whole run.

    Attributes:
        sources: files, folders, glob patterns, "-" or catalog names.
        out: the model file, written at each improvement; None keeps the model in memory.
        text: how the sources are read.
        network: the shape of what is trained.
        training: how.
        samples: whether to write a short sample now and then.
    """

    sources: Sequence[str | os.PathLike[str]]
    out: Path | None = None
    text: TextSettings = TextSettings()
    network: NetworkSettings = NetworkSettings()
    training: TrainingSettings = TrainingSettings()
    samples: bool = False


@dataclass(frozen=True)
class TrainingResult:
    """What a run came to.

    Attributes:
        model: the best on validation.
        train_chars: characters of the training part.
        validation_chars: characters of the validation part.
        validation_nats_per_char: of the kept model, in one ordered pass with carried state.
        train_nats_per_char: mean while training between the kept model's evaluation and the one before.
        stopped: how the run ended.
    """

    model: TextModel = field(repr=False)
    train_chars: int
    validation_chars: int
    train_nats_per_char: float
    validation_nats_per_char: float
    stopped: Stopped


def train(
    *sources: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    lowercase: bool = TextSettings.lowercase,
    bytes: bool = False,  # noqa: A002  # the command line's word
    encoding: str = TextSettings.encoding,
    cell: CellName = NetworkSettings.cell,
    hidden: int = NetworkSettings.hidden,
    layers: int = NetworkSettings.layers,
    embedding: int = NetworkSettings.embedding,
    lanes: int = TrainingSettings.lanes,
    unroll: int = TrainingSettings.unroll_length,
    dropout: float = TrainingSettings.dropout,
    learning_rate: float = TrainingSettings.learning_rate,
    epochs: float | None = None,
    updates: int | None = None,
    validation: float | None = None,
    seed: int = TrainingSettings.seed,
    on_event: Callable[[Event], None] = lambda event: None,
) -> TextModel:
    """Returns a model trained on `sources`, the best on the validation part.

    The arguments are the command line's; see `TrainingSettings` and `NetworkSettings`.

    Args:
        out: a model file that is written at each improvement.
        on_event: is called with each event of the run, to show progress.

    Raises:
        CharloomError: a source, a setting or the output is not as it should be.
    """
    settings = RunSettings(
        sources=sources,
        out=None if out is None else Path(out),
        text=TextSettings(units="bytes" if bytes else "chars", lowercase=lowercase, encoding=encoding),
        network=NetworkSettings(cell=cell, hidden=hidden, layers=layers, embedding=embedding),
        training=TrainingSettings(
            lanes=lanes,
            unroll_length=unroll,
            dropout=dropout,
            learning_rate=learning_rate,
            epochs=epochs,
            updates=updates,
            validation=validation,
            seed=seed,
        ),
    )
    return follow(run_training(settings), on_event).model


def run_training(
    settings: RunSettings, should_stop: Callable[[], bool] = lambda: False
) -> Generator[Event, None, TrainingResult]:
    """Yields the run's events and returns its result.

    `should_stop` is asked several times a second; the run then evaluates, saves the best model and returns.

    Raises:
        CharloomError: a source or the output is not as it should be; found out before training where it can be.
    """
    if settings.out is not None:
        require_writable(settings.out)
    corpus = read_corpus(settings.sources, settings.text)
    if settings.out is not None and os.path.realpath(settings.out) in corpus.paths:
        raise OutputError(
            f"{settings.out} is among the texts to train on, and would be written over. Give another name."
        )
    yield from map(Notice, corpus.notices)
    vocabulary = _vocabulary_of(corpus)
    stream = TokenStream.of_documents(map(vocabulary.encode, corpus.documents))
    train_stream, validation_stream, notices = split_validation(stream, settings.training.validation)
    training, more_notices = fit_lanes(settings.training, len(train_stream))
    yield from map(Notice, notices + more_notices)

    lanes = Lanes(train_stream, training.lanes, training.unroll_length)
    updates = training.updates or (
        lanes.updates_in(training.epochs) if training.epochs else default_updates(lanes.updates_in(1))
    )
    if updates >= 2**31:
        raise SettingError("epochs", f"ask for {updates:,} updates of this text, more than a run can count")
    init_key, training_key = jax.random.split(root_key(training.seed))
    network = Network.init(settings.network, vocabulary.size, vocabulary.start_id, init_key)
    yield Notice(
        f"{corpus.name}: {len(train_stream):,} characters to train on, {len(validation_stream):,} to validate "
        f"on, {vocabulary.size:,} different; {network.parameters:,} parameters; {updates:,} updates, "
        f"{updates * lanes.characters_per_update / len(train_stream):.3g} epochs"
    )
    keeper = _Keeper(settings, training, corpus, vocabulary, updates)
    stopped = yield from _kept(
        train_network(network, lanes, validation_stream, training, updates, training_key, should_stop), keeper
    )
    if keeper.best is None:
        raise CharloomError(
            "training diverged: the loss is not a number, and no model was worth keeping. Lower --learning-rate."
        )
    if stopped.reason == "diverged":
        yield Notice(
            f"training diverged: at update {stopped.update:,} the loss was no number. "
            "The best model before that is kept. Lower --learning-rate"
        )
    validation_nats = score_blocks(keeper.best.network, ordered_pass(validation_stream)).nats_per_char
    model = keeper.model(
        {
            "train_chars": len(train_stream),
            "validation_chars": len(validation_stream),
            "validation_nats_per_char": validation_nats,
        }
    )
    if settings.out is not None:
        model.save(settings.out)
        yield Saved(settings.out)
    return TrainingResult(
        model=model,
        train_chars=len(train_stream),
        validation_chars=len(validation_stream),
        train_nats_per_char=keeper.best.train_nats_per_char,
        validation_nats_per_char=validation_nats,
        stopped=stopped,
    )


class _Keeper:
    """Remembers the best evaluation, and makes the model of it."""

    def __init__(
        self,
        settings: RunSettings,
        fitted: TrainingSettings,
        corpus: Corpus,
        vocabulary: Vocabulary,
        updates: int,
    ):
        self.settings = settings
        self.best: Evaluation | None = None
        self._vocabulary = vocabulary
        self._trained_on = {"name": corpus.name, "sha256": corpus.sha256, "characters": corpus.characters}
        self._training = asdict(fitted) | {"updates": updates}
        self._history: list[dict[str, float | None]] = []

    def add(self, evaluation: Evaluation) -> None:
        self._history.append(
            {
                "update": evaluation.update,
                "train_nats_per_char": finite_or_none(evaluation.train_nats_per_char),
                "validation_nats_per_char": finite_or_none(evaluation.validation_nats_per_char),
            }
        )
        if evaluation.improved:
            self.best = evaluation

    def model(self, outcome: Mapping[str, float] = MappingProxyType({})) -> TextModel:
        """Returns the best model so far, with what is known of its training and `outcome`."""
        assert self.best is not None  # callers have seen an improvement
        return TextModel(
            network=self.best.network,
            vocabulary=self._vocabulary,
            settings=self.settings.network,
            lowercase=self.settings.text.lowercase,
            trained_on=self._trained_on,
            training=self._training | {"kept_update": self.best.update, "history": list(self._history)} | dict(outcome),
        )


def _kept(training: Iterator[Event], keeper: _Keeper) -> Generator[Event, None, Stopped]:
    """Passes the events of `training` on; saves what improves, and writes a sample now and then."""
    out = keeper.settings.out
    last_sample = time.monotonic()
    for event in training:
        yield event
        if isinstance(event, Stopped):
            return event
        if not isinstance(event, Evaluation):
            continue
        keeper.add(event)
        if event.improved and out is not None:
            try:
                keeper.model().save(out)
                yield Saved(out)
            except OutputError as error:  # there may be space again at the next improvement
                yield Notice(f"{error} Training goes on")
        if keeper.best and keeper.settings.samples and time.monotonic() - last_sample > _SAMPLE_SECONDS:
            yield Sample(keeper.model().generate("", _SAMPLE_LENGTH, seed=keeper.settings.training.seed))
            last_sample = time.monotonic()
    raise AssertionError("training ends with Stopped")


def _vocabulary_of(corpus: Corpus) -> Vocabulary:
    texts = [document for document in corpus.documents if isinstance(document, str)]
    return Vocabulary.of_texts(texts) if texts else Vocabulary.of_bytes()
