"""`python -m benchmarks.gpu`: training and writing where JAX computes on a GPU, beside PyTorch on the same one.

charloom's products are in the whole of float32, PyTorch's as cuDNN likes them: in TensorFloat-32 where there is that.
"""

import argparse
import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version

import jax

from benchmarks.workers import in_turn, median, ratio
from benchmarks.workloads import TRAINING, WRITING, Sampling, Training

SECONDS = 2.0
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # nobody is to take the GPU's whole memory
PEERS = {
    "charloom": ["benchmarks.peers.charloom"],
    "PyTorch": ["DEVICE=cuda", "benchmarks.peers.pytorch"],
}


def main() -> None:
    """Prints the tables of medians, in characters per second."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    parser.add_argument("--rounds", type=int, default=3, help="how often each peer is measured")
    rounds = parser.parse_args().rounds
    (device,) = {one.device_kind for one in jax.devices()}
    print(f"{device}, {platform.machine()}; jax {version('jax')}, torch {version('torch')}\n")
    _print_table("train", TRAINING, rounds)
    _print_table("write", WRITING, rounds)


def _print_table(task: str, workloads: Sequence[Training | Sampling], rounds: int) -> None:
    print(f"| | {' | '.join(PEERS)} | × PyTorch |\n{'| --- ' * (len(PEERS) + 2)}|")
    for workload in workloads:
        arguments = [task, json.dumps({"seconds": SECONDS, **workload.as_json()})]
        results = in_turn({peer: how + arguments for peer, how in PEERS.items()}, rounds)
        speeds = [f"{median(of_peer, 'chars_per_second'):,.0f}" for of_peer in results.values()]
        times = ratio(results["charloom"], results["PyTorch"], "chars_per_second")
        print(f"| {workload.name} | {' | '.join(speeds)} | {times:.2f} |", flush=True)
    print()


if __name__ == "__main__":
    main()
