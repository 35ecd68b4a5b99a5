"""Sampling speed of an LSTM next to its peers, after warm-up. The weights are untrained, which costs the same."""

import json
import statistics

from benchmarks.limit import peak_gflops
from benchmarks.workers import Measured, Row, Table, goal, in_turn, median, ratio
from benchmarks.workloads import SAMPLING

SECONDS = 2.0
PEERS = {
    "charloom": ["benchmarks.peers.charloom"],
    "PyTorch": ["benchmarks.peers.pytorch"],
    "Keras, TensorFlow": ["KERAS_BACKEND=tensorflow", "benchmarks.peers.keras"],
}


def run(rounds: int) -> Measured:
    """Returns the figures of all rounds, tables and goals."""
    speeds: list[Row] = [("network", *PEERS, "speedup over PyTorch", "speedup over Keras")]
    shares: list[Row] = [("network", "share of peak")]
    goals: list[Row] = []
    results = {}
    peaks: list[float] = []
    for workload in SAMPLING:
        task = ["generate", json.dumps({"seconds": SECONDS, **workload.as_json()})]
        of = in_turn(
            {peer: arguments + task for peer, arguments in PEERS.items()}, rounds, lambda: peaks.append(peak_gflops())
        )
        results[workload.name] = of
        medians = [median(of[peer], "chars_per_second") for peer in PEERS]
        times, times_keras = (ratio(of["charloom"], of[peer], "chars_per_second") for peer in list(PEERS)[1:])
        speeds.append((workload.name, *(f"{speed:,.0f}" for speed in medians), f"{times:.1f}", f"{times_keras:,.0f}"))
        share = medians[0] * workload.operations / (statistics.median(peaks) * 1e9)
        shares.append((workload.name, f"{share:.0%}"))
        name = f"{workload.name}, sampling"
        if workload.goals:
            goals.append(goal(f"{name}, speedup over PyTorch", times, workload.goals, ".1f"))
        if workload.goals_over_keras:
            goals.append(goal(f"{name}, speedup over Keras", times_keras, workload.goals_over_keras, ",.0f"))
        if workload.goals_of_speed:
            goals.append(goal(f"{name}, characters per second", medians[0], workload.goals_of_speed, ",.0f"))
    return Measured(
        {"sampling": results, "sampling_peak_gflops": peaks},
        [Table("Sampling", speeds, "Characters per second.")],
        [Table("Sampling and the peak", shares)],
        goals,
    )
