"""`python -m benchmarks.record_generation`: the speed of generating many short records, and 64 long texts.

The weights are untrained, which costs the same. A record ends after 37 characters on average, as SMILES strings do, but
its length varies more.
"""

import statistics
import time
from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from charloom import TextModel, Vocabulary
from charloom.kernels import kernels_in_use
from charloom.models import Network
from charloom.settings import NetworkSettings, SamplingSettings, TextSettings

ROUNDS = 5
HIDDEN = 512
CHARACTERS = 39
RECORDS = 8_000
MEAN_LENGTH = 37
LONG_TEXTS, LONG_LENGTH = 64, 2_000


def main() -> None:
    """Generates both in turn, and prints a line."""
    kernels_in_use()  # compiled before anything is measured
    records, continuous = _model(TextSettings(delimiter="\n")), _model(TextSettings())
    speeds: list[tuple[float, float]] = []
    for seed in range(ROUNDS + 1):  # the first one warms up
        speeds.append(
            (_speed(records, RECORDS, 20 * MEAN_LENGTH, seed), _speed(continuous, LONG_TEXTS, LONG_LENGTH, seed))
        )
    of_records, of_long = (statistics.median(of_rounds) for of_rounds in zip(*speeds[1:], strict=True))
    share = statistics.median(one / other for one, other in speeds[1:])
    print(
        f"{RECORDS:,} records: {of_records:,.0f} characters per second. {LONG_TEXTS} long texts: {of_long:,.0f}. "
        f"Ratio: {share:.0%}. Medians of {ROUNDS} rounds."
    )


def _model(text: TextSettings) -> TextModel:
    characters = "".join(chr(ord("0") + at) for at in range(CHARACTERS))
    vocabulary = Vocabulary.of_texts([characters + "\n"], record_end=text.record_end)
    settings = NetworkSettings(hidden=HIDDEN)
    network = Network.init(settings, vocabulary.size, vocabulary.start_id, np.random.default_rng(0))
    bias = np.array(network.head.bias)
    if vocabulary.end_id is not None:  # all other tokens are about equally likely
        bias[vocabulary.end_id] = np.log(CHARACTERS / MEAN_LENGTH)
    return TextModel(replace(network, head=replace(network.head, bias=jnp.asarray(bias))), vocabulary, settings, text)


def _speed(model: TextModel, count: int, length: int, seed: int) -> float:
    """Returns the characters of all texts per second, without the ends of records."""
    begin = time.perf_counter()
    streams = model.prompted().stream_many(
        length, SamplingSettings(temperature=1.0), seed=seed, stream_indexes=range(count)
    )
    characters = sum(len("".join(stream)) for stream in streams)
    return characters / (time.perf_counter() - begin)


if __name__ == "__main__":
    main()
