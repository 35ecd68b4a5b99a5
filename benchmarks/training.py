"""Training speed, start-up time and memory next to every peer, and the speed as a share of the processor's peak."""

import json
import statistics

from benchmarks.limit import matrix_gflops, peak_gflops
from benchmarks.workers import Figures, Measured, Row, Table, goal, in_turn, median, ratio
from benchmarks.workloads import GOALS_OF_MEGABYTES, GOALS_OF_ONE_TO_ONE, GOALS_OF_SHARE, TRAINING

SECONDS = 3.0
PEERS = {
    "charloom": ["benchmarks.peers.charloom"],
    "reference": ["CHARLOOM_KERNELS=reference", "benchmarks.peers.charloom"],
    "PyTorch": ["benchmarks.peers.pytorch"],
    "Keras, TensorFlow": ["KERAS_BACKEND=tensorflow", "benchmarks.peers.keras"],
    "Keras, JAX": ["KERAS_BACKEND=jax", "benchmarks.peers.keras"],
}
EPOCHS = 500


def run(rounds: int) -> Measured:
    """Returns the figures of all rounds, tables and goals."""
    peaks: list[float] = []
    matrices = [matrix_gflops()]
    results = {}
    for workload in TRAINING:
        task = ["train", json.dumps({"seconds": SECONDS, **workload.as_json()})]
        peers = {peer: arguments + task for peer, arguments in PEERS.items()}
        results[workload.name] = in_turn(peers, rounds, before=lambda: peaks.append(peak_gflops()))
    task = ["one_to_one", json.dumps({"epochs": EPOCHS})]
    letters = in_turn(
        {peer: arguments + task for peer, arguments in PEERS.items() if peer not in ("reference", "PyTorch")}, rounds
    )
    matrices.append(matrix_gflops())
    peak = statistics.median(peaks)
    figures = {
        "peak_gflops": peaks,
        "matrix_gflops": matrices,
        "training": results,
        "operations_per_character": {workload.name: workload.operations for workload in TRAINING},
        "one_to_one_seconds": letters,
    }
    limits = [
        ("limit", "GFLOP/s"),
        ("multiply-adds in registers", f"{peak:.0f} ({min(peaks):.0f} to {max(peaks):.0f})"),
        ("product of two matrices of side 4,096, PyTorch", f"{statistics.median(matrices):.0f}"),
    ]
    tables = [
        Table(
            "Training",
            _speeds(results),
            "Characters per second. The reference is charloom without its native kernels.",
        ),
        Table(
            "Start-up time",
            _costs(results, "compile_seconds", 1, ".1f"),
            "Seconds to build and compile a network and to make its first steps.",
        ),
        Table(
            "Memory",
            _costs(results, "memory_bytes", 1e6, ".0f"),
            "Peak memory during training, in MB, above what the imports take.",
        ),
        Table(
            "A tiny network",
            _letters(letters),
            f"Seconds for {EPOCHS} epochs of the experiment `alphabet/one_to_one`, with one seed.",
        ),
    ]
    details = [
        Table("Limits of the machine", limits, "The peak is the speed when nothing but multiply-adds takes time."),
        Table(
            "Training and the peak",
            _shares(results, peak),
            "The speedup at the peak is what charloom would reach if nothing but multiply-adds took time.",
        ),
    ]
    return Measured(figures, tables, details, _goals(results, peak, letters))


def _speeds(results: dict[str, Figures]) -> list[Row]:
    rows: list[Row] = [("network, batch size × sequence length", *PEERS, "speedup over PyTorch")]
    for workload in TRAINING:
        of = results[workload.name]
        speeds = (f"{median(of[peer], 'chars_per_second'):,.0f}" for peer in PEERS)
        rows.append((workload.name, *speeds, f"{ratio(of['charloom'], of['PyTorch'], 'chars_per_second'):.2f}"))
    return rows


def _costs(results: dict[str, Figures], key: str, unit: float, form: str) -> list[Row]:
    rows: list[Row] = [("network, batch size × sequence length", *PEERS)]
    for workload in TRAINING:
        of = results[workload.name]
        rows.append((workload.name, *(format(median(of[peer], key) / unit, form) for peer in PEERS)))
    return rows


def _letters(letters: dict[str, list[Figures]]) -> list[Row]:
    rows: list[Row] = [("", *letters, "speedup over Keras, TensorFlow")]
    for what in GOALS_OF_ONE_TO_ONE:
        times = ratio(letters["Keras, TensorFlow"], letters["charloom"], what)
        rows.append((what, *(f"{median(of, what):.3g}" for of in letters.values()), f"{times:.0f}"))
    return rows


def _shares(results: dict[str, Figures], peak: float) -> list[Row]:
    rows: list[Row] = [
        ("network, batch size × sequence length", "speedup over PyTorch", "speedup at the peak", "share of peak")
    ]
    for workload in TRAINING:
        of = results[workload.name]
        at_peak = peak * 1e9 / workload.operations
        rows.append(
            (
                workload.name,
                f"{ratio(of['charloom'], of['PyTorch'], 'chars_per_second'):.2f}",
                f"{at_peak / median(of['PyTorch'], 'chars_per_second'):.2f}",
                f"{median(of['charloom'], 'chars_per_second') / at_peak:.0%}",
            )
        )
    return rows


def _goals(results: dict[str, Figures], peak: float, letters: dict[str, list[Figures]]) -> list[Row]:
    rows = []
    for workload in TRAINING:
        of = results[workload.name]
        name = f"{workload.name}, training"
        if workload.goals:
            times = ratio(of["charloom"], of["PyTorch"], "chars_per_second")
            rows.append(goal(f"{name}, speedup over PyTorch", times, workload.goals, ".2f"))
        if workload is GOALS_OF_SHARE[0]:
            share = median(of["charloom"], "chars_per_second") * workload.operations / (peak * 1e9)
            rows.append(goal(f"{name}, share of peak", share, GOALS_OF_SHARE[1], ".0%"))
        if workload is GOALS_OF_MEGABYTES[0]:
            megabytes = median(of["charloom"], "memory_bytes") / 1e6
            rows.append(goal(f"{name}, memory in MB", megabytes, GOALS_OF_MEGABYTES[1], ".0f", low=True))
    for what, bounds in GOALS_OF_ONE_TO_ONE.items():
        times = ratio(letters["Keras, TensorFlow"], letters["charloom"], what)
        rows.append(goal(f"`one_to_one` {what}, speedup over Keras, TensorFlow", times, bounds, ".0f"))
    return rows
