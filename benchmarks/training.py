"""Training speed and memory beside every peer, each in a process of its own, in turn; and as a share of the peak."""

import json
import statistics

from benchmarks.limit import matrix_gflops, peak_gflops
from benchmarks.workers import Figures, Row, in_turn, median, ratio, verdict
from benchmarks.workloads import MEGABYTES, ONE_TO_ONE, SHARE_OF_PEAK, TRAINING

SECONDS = 3.0
PEERS = {
    "charloom": ["benchmarks.peers.charloom"],
    "reference": ["CHARLOOM_KERNELS=reference", "benchmarks.peers.charloom"],
    "PyTorch": ["benchmarks.peers.pytorch"],
    "Keras, TensorFlow": ["KERAS_BACKEND=tensorflow", "benchmarks.peers.keras"],
    "Keras, JAX": ["KERAS_BACKEND=jax", "benchmarks.peers.keras"],
}
EPOCHS = 500


def run(rounds: int) -> tuple[Figures, list[tuple[str, list[Row]]]]:
    """Returns the figures of all rounds, and tables with their captions."""
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
    limit = [
        ("limit", "GFLOP/s"),
        ("multiply-adds in registers", f"{peak:.0f} ({min(peaks):.0f} to {max(peaks):.0f})"),
        ("a matrix product of 4,096, PyTorch", f"{statistics.median(matrices):.0f}"),
    ]
    return figures, [
        ("What the machine can do", limit),
        (
            "Training, characters per second; × PyTorch, and what that would be at the peak, where nothing but the "
            "multiply-adds took time",
            _speeds(results, peak),
        ),
        ("Compilation, seconds, and memory above what the imports take, MB", _costs(results)),
        (f"The alphabet's one_to_one, {EPOCHS} epochs, one seed, seconds", _letters(letters)),
    ]


def _speeds(results: dict[str, Figures], peak: float) -> list[Row]:
    rows: list[Row] = [("network, rows × sequence", *PEERS, "× PyTorch", "", "at the peak", "share of peak", "")]
    for workload in TRAINING:
        of = results[workload.name]
        speeds = [median(of[peer], "chars_per_second") for peer in PEERS]
        at_peak = peak * 1e9 / workload.operations
        share = speeds[0] / at_peak
        times = ratio(of["charloom"], of["PyTorch"], "chars_per_second")
        rows.append(
            (
                workload.name,
                *(f"{speed:,.0f}" for speed in speeds),
                f"{times:.2f}",
                verdict(times, workload.wanted),
                f"{at_peak / median(of['PyTorch'], 'chars_per_second'):.2f}",
                f"{share:.0%}",
                verdict(share, SHARE_OF_PEAK[1] if workload is SHARE_OF_PEAK[0] else None),
            )
        )
    return rows


def _costs(results: dict[str, Figures]) -> list[Row]:
    rows: list[Row] = [("network, rows × sequence", *PEERS, "")]
    for workload in TRAINING:
        of = results[workload.name]
        megabytes = {peer: median(of[peer], "memory_bytes") / 1e6 for peer in PEERS}
        cells = (f"{median(of[peer], 'compile_seconds'):.1f} s, {megabytes[peer]:.0f} MB" for peer in PEERS)
        wanted = MEGABYTES[1] if workload is MEGABYTES[0] else None
        rows.append((workload.name, *cells, verdict(megabytes["charloom"], wanted, low=True)))
    return rows


def _letters(letters: dict[str, list[Figures]]) -> list[Row]:
    rows: list[Row] = [("", *letters, "× Keras, TensorFlow", "")]
    for what, wanted in ONE_TO_ONE.items():
        times = ratio(letters["Keras, TensorFlow"], letters["charloom"], what)
        rows.append(
            (what, *(f"{median(of, what):.3g}" for of in letters.values()), f"{times:.0f}", verdict(times, wanted))
        )
    return rows
