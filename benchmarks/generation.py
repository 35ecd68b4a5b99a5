"""Sampling speed of an LSTM next to its peers, after warm-up. The weights are untrained, which costs the same."""

import json

from benchmarks.limit import Peaks, measured_peaks, peak_of
from benchmarks.workers import Measured, Row, Table, goal, in_turn, median, reasons, speeds
from benchmarks.workloads import SAMPLING

SECONDS = 2.0
PEERS = {
    "charloom": ["benchmarks.peers.charloom"],
    "PyTorch": ["benchmarks.peers.pytorch"],
    "PyTorch, bfloat16": ["PRECISION=bfloat16", "benchmarks.peers.pytorch"],
    "PyTorch, int8": ["PRECISION=int8", "benchmarks.peers.pytorch"],
    "PyTorch, compiled": ["COMPILED=1", "benchmarks.peers.pytorch"],
    "ONNX Runtime": ["benchmarks.peers.onnx"],
    "ONNX Runtime, int8": ["PRECISION=int8", "benchmarks.peers.onnx"],
    "Keras, TensorFlow": ["KERAS_BACKEND=tensorflow", "benchmarks.peers.keras"],
}


def run(rounds: int) -> Measured:
    """Returns the figures of all rounds, tables and goals."""
    rows: list[Row] = [("network", *PEERS, "best peer", "speedup over it")]
    shares: list[Row] = [("network", "share of float32 peak")]
    goals: list[Row] = []
    results = {}
    peaks: list[Peaks] = []
    for workload in SAMPLING:
        task = ["generate", json.dumps({"seconds": SECONDS, **workload.as_json()})]
        peers = {peer: arguments + task for peer, arguments in PEERS.items()}
        of = in_turn(peers, rounds, before=lambda: peaks.append(measured_peaks()))
        results[workload.name] = of
        rows.append((workload.name, *speeds(of)))
        speed = median(of["charloom"], "chars_per_second")
        shares.append((workload.name, f"{speed * workload.operations / (peak_of('float32', peaks) * 1e9):.0%}"))
        if workload.goals:
            goals.append(goal(f"{workload.name}, sampling, characters per second", speed, workload.goals, ",.0f"))
    note = "Characters per second. PyTorch and ONNX Runtime use one thread or one per core, whichever is faster."
    return Measured(
        {"sampling": results, "sampling_peaks": peaks},
        [Table("Sampling", rows, note + reasons(results))],
        [Table("Sampling and the peak", shares)],
        goals,
    )
