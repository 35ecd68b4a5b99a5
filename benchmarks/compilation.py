"""`python -m benchmarks.compilation`: compilation time and training speed at each of LLVM's optimization levels."""

import json
import os
import statistics
import subprocess
import sys

from benchmarks.workloads import TRAINING

LEVELS = (0, 1, 3)
ROUNDS = 3


def main() -> None:
    """Trains at each level on the reference, which XLA compiles as a whole, and prints a table."""
    print("| network, batch size × sequence length | level | compilation, s | characters per second |")
    print("| --- | --- | --- | --- |")
    for workload in (TRAINING[0], TRAINING[-1]):
        task = json.dumps({"seconds": 2.0, **workload.as_json()})
        rounds: dict[int, list[dict[str, float]]] = {level: [] for level in LEVELS}
        for _ in range(ROUNDS):
            for level in LEVELS:
                done = subprocess.run(
                    [sys.executable, "-c", _PROGRAM, str(level), task],
                    env={**os.environ, "CHARLOOM_KERNELS": "reference", "JAX_ENABLE_COMPILATION_CACHE": "0"},
                    capture_output=True,
                    text=True,
                    check=True,
                )
                rounds[level].append(json.loads(done.stdout.splitlines()[-1]))
        for level, results in rounds.items():
            seconds, speed = (
                statistics.median(result[key] for result in results) for key in ("compile_seconds", "chars_per_second")
            )
            print(f"| {workload.name} | {level} | {seconds:.1f} | {speed:,.0f} |", flush=True)


_PROGRAM = """
import json, sys
from functools import partial
import charloom.kernels
import jax
level = {"xla_backend_optimization_level": int(sys.argv[1])}
charloom.kernels.compiled = partial(jax.jit, compiler_options=level)
from benchmarks.peers import charloom as peer
print(json.dumps(peer.train(**json.loads(sys.argv[2]))))
"""


if __name__ == "__main__":
    main()
