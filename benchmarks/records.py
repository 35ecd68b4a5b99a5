"""`python -m benchmarks.records`: the speed of training on names as records, and as one continuous text."""

import statistics
import time

import numpy as np

from charloom.data import ContiguousBatches, TokenStream
from charloom.models import Network
from charloom.runs.dataset_split import split_corpus
from charloom.settings import NetworkSettings, TextSettings, TrainingSettings
from charloom.text import read_named_corpus
from charloom.training import Trainer, initial_state, root_key, step_rule

ROUNDS = 5
SECONDS = 3.0


def main() -> None:
    """Trains on both in turn, and prints a line."""
    training = TrainingSettings()
    records = split_corpus(read_named_corpus("names", TextSettings()), TextSettings(delimiter="\n"), training)
    streams = {
        "records": records.train,
        "continuous": TokenStream(records.train.token_ids, np.zeros(1, np.int64)),
    }
    trainers = {name: _trainer(stream, records.vocabulary.size, training) for name, stream in streams.items()}
    speeds: dict[str, list[float]] = {name: [] for name in streams}
    for _ in range(ROUNDS):
        for name, trainer in trainers.items():
            speeds[name].append(_speed(trainer, training))
    shares = [one / other for one, other in zip(speeds["records"], speeds["continuous"], strict=True)]
    medians = {name: statistics.median(of_rounds) for name, of_rounds in speeds.items()}
    print(
        f"Records: {medians['records']:,.0f} characters per second. Continuous text: {medians['continuous']:,.0f}. "
        f"Ratio: {statistics.median(shares):.0%}. Medians of {ROUNDS} rounds."
    )


def _trainer(stream: TokenStream, vocab_size: int, training: TrainingSettings) -> Trainer:
    network = Network.init(NetworkSettings(), vocab_size, 0, np.random.default_rng(0))
    rule = step_rule(training)
    batches = ContiguousBatches(stream, training.batch_size, training.sequence_length)
    trainer = Trainer(initial_state(network, training.batch_size, rule), batches, rule, root_key(0))
    for _ in range(3):
        _dispatch(trainer)
    return trainer


def _speed(trainer: Trainer, training: TrainingSettings) -> float:
    """Returns characters per second, including all work on the host."""
    first, begin = trainer.step, time.perf_counter()
    while (elapsed := time.perf_counter() - begin) < SECONDS:
        _dispatch(trainer)
    return (trainer.step - first) * training.batch_size * training.sequence_length / elapsed


def _dispatch(trainer: Trainer) -> None:
    trainer.dispatch(1_000_000_000, lambda first, count: np.full(count, 0.001, np.float32))


if __name__ == "__main__":
    main()
