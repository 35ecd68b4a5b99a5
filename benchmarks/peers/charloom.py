"""charloom itself. `CHARLOOM_KERNELS` selects the kernels, and `PRECISION` that of training: auto by default."""

import json
import os
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.scoring import CHARACTERS as LETTERS
from benchmarks.scoring import model_of
from benchmarks.texts import random_ids, random_lines
from benchmarks.workers import Figures, memory_bytes
from benchmarks.workloads import CHARACTERS, EMBEDDING, VOCABULARY
from charloom.data import ContiguousBatches, TokenStream
from charloom.inference import generate_tokens, read_prompt
from charloom.kernels import kernels_in_use
from charloom.models import Network
from charloom.runs.precision import with_precision
from charloom.settings import NetworkSettings, SamplingSettings, TrainingSettings
from charloom.training import StepRule, Trainer, initial_state

IMPORTED = memory_bytes()
PRECISION: Any = os.environ.get("PRECISION", "auto")


def train(seconds: float, cell: Any, layers: int, hidden: int, batch_size: int, sequence_length: int) -> Figures:
    """Trains like the commands do, and reads the clock between dispatches. Work on the host counts."""
    kernels_in_use()  # compiled once per machine, not per network
    begin = time.perf_counter()
    stream = TokenStream.from_documents([random_ids(CHARACTERS, VOCABULARY)])
    settings = NetworkSettings(cell=cell, layers=layers, hidden=hidden, embedding=EMBEDDING)
    network = Network.init(settings, VOCABULARY, 0, np.random.default_rng(0))
    training, _ = with_precision(TrainingSettings(precision=PRECISION), settings)
    assert training.precision != "auto"
    rule = StepRule(nesterov=True, precision=training.precision)
    trainer = Trainer(
        initial_state(network, batch_size, rule),
        ContiguousBatches(stream, batch_size, sequence_length),
        rule,
        jax.random.key(1),
    )

    def dispatch() -> None:
        trainer.dispatch(1_000_000, lambda first, count: np.full(count, 0.001, np.float32))

    dispatch()
    warm = time.perf_counter()
    dispatch()
    first, timed = trainer.step, time.perf_counter()
    while (elapsed := time.perf_counter() - timed) < seconds:
        dispatch()
    return {
        "chars_per_second": (trainer.step - first) * batch_size * sequence_length / elapsed,
        "compile_seconds": warm - begin,
        "memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - IMPORTED,
        "precision": rule.precision,
    }


def generate(seconds: float, hidden: int, streams: int) -> Figures:
    """Samples texts in parallel, with a temperature."""
    settings = NetworkSettings(hidden=hidden, embedding=EMBEDDING)
    network = Network.init(settings, VOCABULARY, 0, np.random.default_rng(0))
    prompted = read_prompt(network, np.arange(8))
    for warm in (True, False):
        steps, begin = 0, time.perf_counter()
        for block in generate_tokens(network, prompted, 10_000_000, SamplingSettings(), 0, range(streams)):
            steps += block.shape[1]
            if (elapsed := time.perf_counter() - begin) > (0.3 if warm else seconds):
                break
    return {"chars_per_second": steps * streams / elapsed}


def score(seconds: float, hidden: int, lines: int) -> Figures:
    """Scores many lines, as `score_many` and the command do."""
    model = model_of(hidden)
    texts = ["".join(LETTERS[index] for index in line) for line in random_lines(lines, VOCABULARY)]
    model.score_many(texts)
    passes, begin = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begin) < seconds:
        model.score_many(texts)
        passes += 1
    return {"chars_per_second": passes * sum(map(len, texts)) / elapsed}


def one_to_one(epochs: int) -> Figures:
    """Runs the first experiment of the alphabet study with one seed."""
    from charloom.studies import STUDIES
    from charloom.studies.run_seeds import run_seeds
    from charloom.training import Phase

    experiment = replace(
        STUDIES["alphabet"].experiments["one_to_one"], seeds=1, phases=(Phase(0.001, epochs),), showcases=()
    )
    times = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            events = run_seeds(experiment, {}, 0, Path(folder))
            try:
                while True:
                    next(events)
            except StopIteration as stopped:
                times.append(stopped.value["training_seconds"])
    return {"with compilation": times[0], "without compilation": times[1]}


if __name__ == "__main__":
    tasks = {"train": train, "generate": generate, "score": score, "one_to_one": one_to_one}
    print(json.dumps(tasks[sys.argv[1]](**json.loads(sys.argv[2]))))
