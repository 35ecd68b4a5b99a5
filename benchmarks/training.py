"""Training speed, start-up time and memory next to every peer, and the speed as a share of the processor's peak."""

import json
import statistics

from benchmarks.limit import Peaks, matrix_gflops, measured_peaks, peak_of
from benchmarks.workers import (
    Figures,
    Measured,
    Row,
    Table,
    best_peer,
    figure,
    goal,
    in_turn,
    median,
    over_best,
    ratio,
    reasons,
    speeds,
)
from benchmarks.workloads import (
    GOALS_OF_MEGABYTES,
    GOALS_OF_ONE_TO_ONE,
    GOALS_OF_SHARE,
    GOALS_OVER_FLOAT32,
    TRAINING,
    Training,
)

SECONDS = 3.0
FLOAT32, REFERENCE = "charloom, float32", "charloom, reference"
PEERS = {
    "charloom": ["benchmarks.peers.charloom"],
    FLOAT32: ["PRECISION=float32", "benchmarks.peers.charloom"],
    REFERENCE: ["PRECISION=float32", "CHARLOOM_KERNELS=reference", "benchmarks.peers.charloom"],
    "PyTorch": ["benchmarks.peers.pytorch"],
    "PyTorch, bfloat16": ["PRECISION=bfloat16", "benchmarks.peers.pytorch"],
    "PyTorch, compiled": ["COMPILED=1", "benchmarks.peers.pytorch"],
    "PyTorch, bfloat16, compiled": ["PRECISION=bfloat16", "COMPILED=1", "benchmarks.peers.pytorch"],
    "Keras, TensorFlow": ["KERAS_BACKEND=tensorflow", "benchmarks.peers.keras"],
    "Keras, JAX": ["KERAS_BACKEND=jax", "benchmarks.peers.keras"],
}
OF_LETTERS = {
    "charloom": ["benchmarks.peers.charloom"],
    "Keras, TensorFlow": PEERS["Keras, TensorFlow"],
    "Keras, JAX": PEERS["Keras, JAX"],
}
EPOCHS = 500
MATRICES = ("float32", "bfloat16")


def run(rounds: int) -> Measured:
    """Returns the figures of all rounds, tables and goals."""
    peaks: list[Peaks] = []
    matrices = [_matrices()]
    results = {}
    for workload in TRAINING:
        task = ["train", json.dumps({"seconds": SECONDS, **workload.as_json()})]
        peers = {peer: arguments + task for peer, arguments in PEERS.items()}
        results[workload.name] = in_turn(peers, rounds, before=lambda: peaks.append(measured_peaks()))
    task = ["one_to_one", json.dumps({"epochs": EPOCHS})]
    letters = in_turn({peer: arguments + task for peer, arguments in OF_LETTERS.items()}, rounds)
    matrices.append(_matrices())
    figures = {
        "peaks": peaks,
        "matrix_gflops": matrices,
        "training": results,
        "operations_per_character": {workload.name: workload.operations for workload in TRAINING},
        "one_to_one_seconds": letters,
    }
    tables = [
        Table(
            "Training",
            _speeds(results),
            "Characters per second. charloom trains in bfloat16 where the processor multiplies it faster. "
            f"The reference is charloom in float32 without its native kernels.{reasons(results)}",
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
        Table(
            "Limits of the machine",
            _limits(peaks, matrices),
            "A peak is the speed when nothing but one instruction takes time, which multiplies and adds in registers.",
        ),
        Table(
            "Training and the peak",
            _shares(results, peaks),
            "The peak is that of the precision. The speedup at the peak is what charloom would reach if nothing but "
            "multiply-adds took time.",
        ),
    ]
    return Measured(figures, tables, details, _goals(results, peaks, letters))


def _matrices() -> dict[str, float]:
    return {precision: matrix_gflops(precision) for precision in MATRICES}


def _limits(peaks: list[Peaks], matrices: list[dict[str, float]]) -> list[Row]:
    rows: list[Row] = [("limit", "billions of operations per second")]
    for instruction in peaks[0]:
        readings = [reading[instruction] for reading in peaks]
        rows.append((instruction, f"{statistics.median(readings):,.0f} ({min(readings):,.0f} to {max(readings):,.0f})"))
    for precision in MATRICES:
        speed = statistics.median(reading[precision] for reading in matrices)
        rows.append((f"product of two {precision} matrices of side 4,096, PyTorch", f"{speed:,.0f}"))
    return rows


def _speeds(results: dict[str, Figures]) -> list[Row]:
    rows: list[Row] = [("network, batch size × sequence length", *PEERS, "best peer", "speedup over it")]
    return rows + [(workload.name, *speeds(results[workload.name])) for workload in TRAINING]


def _costs(results: dict[str, Figures], key: str, unit: float, form: str) -> list[Row]:
    rows: list[Row] = [("network, batch size × sequence length", *PEERS)]
    for workload in TRAINING:
        of = results[workload.name]
        rows.append((workload.name, *(figure(of[peer], key, form, unit) for peer in PEERS)))
    return rows


def _letters(letters: dict[str, list[Figures]]) -> list[Row]:
    rows: list[Row] = [("", *letters, "best peer", "speedup over it")]
    for what in GOALS_OF_ONE_TO_ONE:
        best = min(list(OF_LETTERS)[1:], key=lambda peer: median(letters[peer], what))
        times = ratio(letters[best], letters["charloom"], what)
        rows.append((what, *(f"{median(of, what):.3g}" for of in letters.values()), best, f"{times:.0f}"))
    return rows


def _share(workload: Training, results: list[Figures], peaks: list[Peaks]) -> float:
    """Returns the share of the peak of the precision with which charloom trained."""
    at_peak = peak_of(results[0]["precision"], peaks) * 1e9 / workload.operations
    return median(results, "chars_per_second") / at_peak


def _shares(results: dict[str, Figures], peaks: list[Peaks]) -> list[Row]:
    rows: list[Row] = [
        (
            "network, batch size × sequence length",
            "precision",
            "best peer",
            "speedup over it",
            "speedup at the peak",
            "share of peak",
            "share of float32 peak, in float32",
        )
    ]
    for workload in TRAINING:
        of = results[workload.name]
        share = _share(workload, of["charloom"], peaks)
        rows.append(
            (
                workload.name,
                of["charloom"][0]["precision"],
                best_peer(of),
                f"{over_best(of):.2f}",
                f"{over_best(of) / share:.2f}",
                f"{share:.0%}",
                f"{_share(workload, of[FLOAT32], peaks):.0%}",
            )
        )
    return rows


def _goals(results: dict[str, Figures], peaks: list[Peaks], letters: dict[str, list[Figures]]) -> list[Row]:
    rows = []
    for workload in TRAINING:
        of = results[workload.name]
        name = f"{workload.name}, training"
        if workload.goals:
            rows.append(goal(f"{name}, speedup over {best_peer(of)}", over_best(of), workload.goals, ".2f"))
        if workload is GOALS_OVER_FLOAT32[0]:
            times = ratio(of["charloom"], of[FLOAT32], "chars_per_second")
            rows.append(goal(f"{name}, speedup over charloom in float32", times, GOALS_OVER_FLOAT32[1], ".2f"))
        if workload is GOALS_OF_SHARE[0]:
            name_of_share = f"{name}, share of {of['charloom'][0]['precision']} peak"
            rows.append(goal(name_of_share, _share(workload, of["charloom"], peaks), GOALS_OF_SHARE[1], ".0%"))
        if workload is GOALS_OF_MEGABYTES[0]:
            megabytes = median(of["charloom"], "memory_bytes") / 1e6
            rows.append(goal(f"{name}, memory in MB", megabytes, GOALS_OF_MEGABYTES[1], ".0f", low=True))
    for what, bounds in GOALS_OF_ONE_TO_ONE.items():
        times = ratio(letters["Keras, TensorFlow"], letters["charloom"], what)
        rows.append(goal(f"`one_to_one` {what}, speedup over Keras, TensorFlow", times, bounds, ".0f"))
    return rows
