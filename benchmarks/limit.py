"""What this machine can do at most: multiply-adds in registers, and a large matrix product of PyTorch's."""

import subprocess
from functools import cache
from pathlib import Path

from benchmarks.workers import run_peer
from charloom.kernels.build import compile_command
from charloom.machine import available_cores

SECONDS = 0.4
_HERE = Path(__file__).parent


def peak_gflops() -> float:
    """Returns the fused multiply-adds of all cores, in GFLOP/s, measured now."""
    done = subprocess.run(
        [_program(), str(available_cores()), str(SECONDS)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def matrix_gflops() -> float:
    """Returns the speed of a large matrix product in GFLOP/s, measured now."""
    return float(run_peer(["benchmarks.peers.pytorch", "matrix", "{}"])["gflops"])


@cache
def _program() -> Path:
    program = _HERE.parent / "build" / "bench" / "limit"
    program.parent.mkdir(parents=True, exist_ok=True)
    kernels = _HERE.parent / "src" / "charloom" / "kernels" / "cpp"
    subprocess.run([*compile_command(), f"-I{kernels}", str(_HERE / "limit.cc"), "-o", str(program)], check=True)
    return program
