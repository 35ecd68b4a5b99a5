"""How long `charloom generate` takes for many records. Only the weight for the end of a record is not random."""

import math
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.workers import Measured, Row, Table, goal
from benchmarks.workloads import EMBEDDING, RECORDS


def run(rounds: int) -> Measured:
    """Returns the figures of all rounds, a table and a goal."""
    with tempfile.TemporaryDirectory() as folder:
        model = _saved_model(Path(folder))
        _generated(model, count=64)  # the first run may compile the kernels
        results = [_generated(model, RECORDS.count) for _ in range(rounds)]
    seconds = statistics.median(took for took, _ in results)
    length = statistics.median(length for _, length in results)
    rows: list[Row] = [("network", "seconds", "mean length"), (RECORDS.name, f"{seconds:.1f}", f"{length:.1f}")]
    return Measured(
        {"records": [{"seconds": took, "length": length} for took, length in results]},
        [Table("Records", rows, "Seconds of the whole command.")],
        [],
        [goal(f"{RECORDS.name}, seconds", seconds, RECORDS.goals, ".1f", low=True)],
    )


def _generated(model: Path, count: int) -> tuple[float, float]:
    """Returns the seconds that the command takes, and the mean length of its records."""
    command = [Path(sys.executable).with_name("charloom"), "generate", str(model), "--count", str(count)]
    begin = time.perf_counter()
    done = subprocess.run([*command, "--temperature", "1", "--seed", "1"], capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - begin
    records = done.stdout.splitlines()
    return seconds, sum(map(len, records)) / len(records)


def _saved_model(folder: Path) -> Path:
    import jax.numpy as jnp
    import numpy as np

    from charloom import TextModel, Vocabulary
    from charloom.models import Network
    from charloom.settings import NetworkSettings, TextSettings

    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123"
    vocabulary = Vocabulary.of_texts([letters], record_end="\n")
    settings = NetworkSettings(hidden=RECORDS.hidden, embedding=EMBEDDING)
    network = Network.init(settings, vocabulary.size, vocabulary.start_id, np.random.default_rng(0))
    # All characters are about as likely. Of n + 1 characters, one ends a record of n.
    bias = np.array(network.head.bias)
    bias[vocabulary.end_id] += math.log(len(letters) / RECORDS.length)
    network = replace(network, head=replace(network.head, bias=jnp.asarray(bias)))
    TextModel(network, vocabulary, settings, TextSettings(delimiter="\n")).save(folder / "model.safetensors")
    return folder / "model.safetensors"
