"""Generation speed of an LSTM-512, one stream, after warm-up; the weights are untrained, which costs the same."""

import json
import time

import numpy as np

from benchmarks.workers import Figures, Rows, in_turn, median

LENGTH = 20_000
ROUNDS = 3


def run() -> tuple[Figures, Rows]:
    """Returns the figures of all rounds, and the table's rows."""
    results = in_turn("benchmarks.generation", ["charloom"], ROUNDS)
    speed = median(results["charloom"], "chars_per_second")
    return {"rounds": results}, [("generating, LSTM-512, one stream", f"{speed:,.0f} chars/s", "8,000")]


def charloom() -> dict[str, float]:
    """Writes one long text."""
    import jax

    from charloom.inference import read_prompt, write
    from charloom.models import Network
    from charloom.settings import NetworkSettings, SamplingSettings

    network = Network.init(NetworkSettings(hidden=512, embedding=42), 57, 0, jax.random.key(0))
    stream = read_prompt(network, np.arange(8))
    settings = SamplingSettings()
    for _ in write(network, stream, 200, settings, seed=0):  # compiles
        pass
    begin = time.perf_counter()
    for _ in write(network, stream, LENGTH, settings, seed=0):
        pass
    return {"chars_per_second": LENGTH / (time.perf_counter() - begin)}


if __name__ == "__main__":
    print(json.dumps(charloom()))
