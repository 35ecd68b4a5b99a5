"""Sampling speed of an LSTM beside its peers, after warm-up; the weights are untrained, which costs the same."""

import json
import statistics

from benchmarks.limit import peak_gflops
from benchmarks.workers import Figures, Row, in_turn, median, ratio, verdict
from benchmarks.workloads import WRITING

SECONDS = 2.0
PEERS = {
    "charloom": ["benchmarks.peers.charloom"],
    "PyTorch": ["benchmarks.peers.pytorch"],
    "Keras, TensorFlow": ["KERAS_BACKEND=tensorflow", "benchmarks.peers.keras"],
}


def run(rounds: int) -> tuple[Figures, list[tuple[str, list[Row]]]]:
    """Returns the figures of all rounds, and a table with its caption."""
    rows: list[Row] = [("network", *PEERS, "", "× PyTorch", "", "× Keras", "", "share of peak")]
    results = {}
    peaks: list[float] = []
    for workload in WRITING:
        task = ["write", json.dumps({"seconds": SECONDS, **workload.as_json()})]
        of = in_turn(
            {peer: arguments + task for peer, arguments in PEERS.items()}, rounds, lambda: peaks.append(peak_gflops())
        )
        results[workload.name] = of
        speeds = [median(of[peer], "chars_per_second") for peer in PEERS]
        times, times_keras = (ratio(of["charloom"], of[peer], "chars_per_second") for peer in list(PEERS)[1:])
        rows.append(
            (
                workload.name,
                *(f"{speed:,.0f}" for speed in speeds),
                verdict(speeds[0], workload.wanted_speed),
                f"{times:.1f}",
                verdict(times, workload.wanted),
                f"{times_keras:,.0f}",
                verdict(times_keras, workload.wanted_of_keras),
                f"{speeds[0] * workload.operations / (statistics.median(peaks) * 1e9):.0%}",
            )
        )
    return {"writing": results, "writing_peak_gflops": peaks}, [("Sampling, characters per second", rows)]
