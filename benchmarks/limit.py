"""The limits of this machine: multiply-adds in registers, and a large matrix product in PyTorch."""

import subprocess
from functools import cache
from pathlib import Path

from benchmarks.workers import run_peer
from charloom.kernels.build import compile_command
from charloom.machine import available_cores

SECONDS = 0.4
_HERE = Path(__file__).parent


def peak_gflops() -> float:
    """Measures and returns the fused multiply-adds of all cores, in GFLOP/s."""
    done = subprocess.run(
        [_program(), str(available_cores()), str(SECONDS)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def matrix_gflops() -> float:
    """Measures and returns the speed of a large matrix product, in GFLOP/s."""
    return float(run_peer(["benchmarks.peers.pytorch", "matrix", "{}"])["gflops"])


@cache
def _program() -> Path:
    program = _HERE.parent / "build" / "bench" / "limit"
    program.parent.mkdir(parents=True, exist_ok=True)
    kernels = _HERE.parent / "src" / "charloom" / "kernels" / "cpp"
    subprocess.run([*compile_command(), f"-I{kernels}", str(_HERE / "limit.cc"), "-o", str(program)], check=True)
    return program
