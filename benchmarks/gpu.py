"""`python -m benchmarks.gpu`: training and sampling where JAX computes on a GPU, next to PyTorch on the same GPU.

charloom multiplies in full float32. PyTorch leaves it to cuDNN, which uses TensorFloat-32 if the GPU has it.
"""

import argparse
import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version

import jax

from benchmarks.workers import in_turn, median, ratio
from benchmarks.workloads import SAMPLING, TRAINING, Sampling, Training

SECONDS = 2.0
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several processes share the GPU's memory
PEERS = {
    "charloom": ["benchmarks.peers.charloom"],
    "PyTorch": ["DEVICE=cuda", "benchmarks.peers.pytorch"],
}


def main() -> None:
    """Prints tables of medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    parser.add_argument("--rounds", type=int, default=3, help="How often each peer is measured.")
    rounds = parser.parse_args().rounds
    (device,) = {one.device_kind for one in jax.devices()}
    print(f"{device}, {platform.machine()}; jax {version('jax')}, torch {version('torch')}\n")
    _print_table("Training", "train", TRAINING, rounds)
    _print_table("Sampling", "generate", SAMPLING, rounds)


def _print_table(title: str, task: str, workloads: Sequence[Training | Sampling], rounds: int) -> None:
    print(f"{title}, characters per second:\n")
    print(f"| network | {' | '.join(PEERS)} | speedup over PyTorch |\n{'| --- ' * (len(PEERS) + 2)}|")
    for workload in workloads:
        arguments = [task, json.dumps({"seconds": SECONDS, **workload.as_json()})]
        results = in_turn({peer: how + arguments for peer, how in PEERS.items()}, rounds)
        speeds = [f"{median(of_peer, 'chars_per_second'):,.0f}" for of_peer in results.values()]
        times = ratio(results["charloom"], results["PyTorch"], "chars_per_second")
        print(f"| {workload.name} | {' | '.join(speeds)} | {times:.2f} |", flush=True)
    print()


if __name__ == "__main__":
    main()
