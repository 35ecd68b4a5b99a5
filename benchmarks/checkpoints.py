"""`python -m benchmarks.checkpoints`: how long a checkpoint of an LSTM-512 takes, and its share of a run's time."""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.workloads import EMBEDDING, VOCABULARY
from charloom.models import Network
from charloom.runs.run_folder import RunFolder
from charloom.runs.run_recorder import CheckpointArrays
from charloom.settings import NetworkSettings
from charloom.training import StepRule, initial_state

ROUNDS = 9
BATCH_SIZE = 32


def main() -> None:
    """Writes checkpoints like a run, and prints a line."""
    settings = NetworkSettings(hidden=512, embedding=EMBEDDING)
    network = Network.init(settings, VOCABULARY, 0, np.random.default_rng(0))
    state = initial_state(network, BATCH_SIZE, StepRule())
    seconds = []
    with tempfile.TemporaryDirectory(dir=".") as name, RunFolder.opened(Path(name), fresh=True) as folder:
        for _ in range(ROUNDS):
            begin = time.perf_counter()
            path = folder.write_checkpoint(CheckpointArrays(state, state, network), {"history": []})
            seconds.append(time.perf_counter() - begin)
        size, between = path.stat().st_size, folder.seconds_between
    once = statistics.median(seconds)
    print(
        f"A checkpoint of {size / 1e6:.0f} MB takes {once:.3f} s (median of {ROUNDS}). With one every {between:.0f} s, "
        f"that is {once / between:.2%} of the time."
    )


if __name__ == "__main__":
    main()
