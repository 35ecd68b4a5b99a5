"""`python -m benchmarks.training_step`: where the time of a step goes, next to the goal for the whole step.

charloom trains in the precision that it chooses by default. The peer is PyTorch in its faster precision.

XLA's profiler times what runs. XLA's programs run one after another here, so the times add up to the time of the step.
"""

import glob
import json
import statistics
import tempfile
from collections import Counter

import jax
import numpy as np

from benchmarks.limit import measured_peaks, peak_of
from benchmarks.texts import random_ids
from benchmarks.training import PEERS, SECONDS
from benchmarks.workers import Figures, best_peer, median, run_peer
from benchmarks.workloads import CHARACTERS, EMBEDDING, TRAINING, VOCABULARY, Training
from charloom.data import ContiguousBatches, TokenStream
from charloom.models import Network
from charloom.runs.precision import with_precision
from charloom.settings import NetworkSettings, TrainingSettings
from charloom.training import StepRule, Trainer, initial_state, root_key

ROUNDS = 3
WARM_DISPATCHES = 4
PARTS = ("native kernels", "XLA products", "other XLA work", "between calls")
# Events that contain other events.
WRAPPERS = ("ThunkExecutor::Execute", "SlinkyThreadPool::Await", "while")


def main() -> None:
    """Prints a table for the workloads that have a goal over the best peer."""
    print("Milliseconds per step. charloom and PyTorch run in turn; figures are medians.\n")
    print(
        "| network, batch size × sequence length | best of PyTorch | goal | charloom | precision | "
        "multiply-adds at the peak | "
        f"{' | '.join(PARTS)} |"
    )
    print("| --- " * (6 + len(PARTS)) + "|")
    for workload in TRAINING:
        if workload.goals is None:
            continue
        characters = workload.batch_size * workload.sequence_length
        task = ["train", json.dumps({"seconds": SECONDS, **workload.as_json()})]
        rule = _rule(workload)
        peaks, parts = [], []
        peers: dict[str, list[Figures]] = {"PyTorch": [], "PyTorch, bfloat16": []}
        for _ in range(ROUNDS):
            peaks.append(measured_peaks())
            for peer, of_rounds in peers.items():
                of_rounds.append(run_peer(PEERS[peer] + task))
            parts.append(profile(workload, rule))
        of_peer = characters / median(peers[best_peer(peers)], "chars_per_second") * 1e3
        of_parts = [statistics.median(of[part] for of in parts) for part in PARTS]
        whole = statistics.median(sum(of.values()) for of in parts)
        at_peak = workload.operations * characters / peak_of(rule.precision, peaks) / 1e6
        texts = (f"{figure:.2f}" for figure in (of_peer, of_peer / workload.goals[0], whole))
        rest = (f"{figure:.2f}" for figure in (at_peak, *of_parts))
        print(f"| {' | '.join([workload.name, *texts, rule.precision, *rest])} |", flush=True)


def profile(workload: Training, rule: StepRule) -> dict[str, float]:
    """Returns the milliseconds of each part of a step."""
    network = Network.init(_network(workload), VOCABULARY, 0, np.random.default_rng(0))
    stream = TokenStream.from_documents([random_ids(CHARACTERS, VOCABULARY)])
    batches = ContiguousBatches(stream, workload.batch_size, workload.sequence_length)
    trainer = Trainer(initial_state(network, workload.batch_size, rule), batches, rule, root_key(1))

    def dispatch() -> None:
        trainer.dispatch(1_000_000, lambda first, count: np.full(count, 0.001, np.float32))

    for _ in range(WARM_DISPATCHES):
        dispatch()
    first = trainer.step
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            dispatch()
        (path,) = glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
        milliseconds = _milliseconds(path)
    return {part: milliseconds[part] / (trainer.step - first) for part in PARTS}


def _network(workload: Training) -> NetworkSettings:
    return NetworkSettings(cell=workload.cell, layers=workload.layers, hidden=workload.hidden, embedding=EMBEDDING)


def _rule(workload: Training) -> StepRule:
    training, _ = with_precision(TrainingSettings(), _network(workload))
    assert training.precision != "auto"
    return StepRule(nesterov=True, precision=training.precision)


def _milliseconds(path: str) -> Counter[str]:
    """Returns the milliseconds of each part in a profile of one dispatch, summed over its steps."""
    of_parts: Counter[str] = Counter()
    for plane in jax.profiler.ProfileData.from_file(path).planes:
        for line in plane.lines:
            for event in line.events:
                took = event.duration_ns / 1e6
                if line.name == "python" and event.name.endswith(" dispatch"):
                    # Two functions match: the one here and the trainer's, which it calls. The longer time has both.
                    of_parts["between calls"] = max(of_parts["between calls"], took)
                elif line.name.startswith("tf_XLA") and not event.name.startswith(WRAPPERS):
                    of_parts[_part_of(event.name)] += took
    of_parts["between calls"] -= sum(of_parts[part] for part in PARTS[:3])
    return of_parts


def _part_of(program: str) -> str:
    if program.startswith("ffi_call"):
        return "native kernels"
    return "XLA products" if program.startswith("dot") else "other XLA work"


if __name__ == "__main__":
    main()
