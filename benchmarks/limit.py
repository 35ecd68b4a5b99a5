"""The limits of this machine: products in registers, and a large matrix product in PyTorch."""

import statistics
import subprocess
from functools import cache
from pathlib import Path

from benchmarks.workers import run_peer
from charloom.kernels.build import compile_command
from charloom.machine import available_cores

SECONDS = 0.4
FLOAT32 = "float32 FMA"
_HERE = Path(__file__).parent

Peaks = dict[str, float]
"""Billions of operations per second of all cores, by precision and instruction, such as `bfloat16 AMX`."""


def measured_peaks() -> Peaks:
    """Measures and returns the peak of each multiplying instruction that this processor has."""
    done = subprocess.run(
        [_program(), str(available_cores()), str(SECONDS)], capture_output=True, text=True, check=True
    )
    lines = (line.rsplit(maxsplit=1) for line in done.stdout.splitlines())
    return {instruction: float(figure) for instruction, figure in lines}


def peak_of(precision: str, readings: list[Peaks]) -> float:
    """Returns the peak of the fastest instruction of a precision: the median of the readings.

    >>> peak_of("bfloat16", [{"float32 FMA": 150, "bfloat16 AVX512_BF16": 80, "bfloat16 AMX": 2500}])
    2500
    """
    medians = {name: statistics.median(peaks[name] for peaks in readings) for name in readings[0]}
    return max(figure for name, figure in medians.items() if name.startswith(precision))


def matrix_gflops(precision: str) -> float:
    """Measures and returns the speed of a large matrix product, in GFLOP/s."""
    return float(run_peer([f"PRECISION={precision}", "benchmarks.peers.pytorch", "matrix", "{}"])["gflops"])


@cache
def _program() -> Path:
    program = _HERE.parent / "build" / "bench" / "limit"
    program.parent.mkdir(parents=True, exist_ok=True)
    kernels = _HERE.parent / "src" / "charloom" / "kernels" / "cpp"
    subprocess.run([*compile_command(), f"-I{kernels}", str(_HERE / "limit.cc"), "-o", str(program)], check=True)
    return program
