"""`python -m benchmarks.gpu`: charloom on a GPU and on the CPU of the same machine, next to PyTorch on the GPU.

charloom multiplies in full float32. PyTorch leaves it to cuDNN, which uses TensorFloat-32 if the GPU has it.
"""

import argparse
import json
import os
import platform
from importlib.metadata import version

import jax

from benchmarks.workers import Figures, in_turn, median, ratio
from benchmarks.workloads import SAMPLING, TRAINING, Sampling, Training

SECONDS = 2.0
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several processes share the GPU's memory
PEERS = {
    "charloom, GPU": ["benchmarks.peers.charloom"],
    "charloom, CPU": ["JAX_PLATFORMS=cpu", "benchmarks.peers.charloom"],
    "PyTorch, GPU": ["DEVICE=cuda", "benchmarks.peers.pytorch"],
}
LARGER = (
    Training(cell="lstm", layers=1, hidden=1024, batch_size=64, sequence_length=64),
    Training(cell="lstm", layers=1, hidden=2048, batch_size=64, sequence_length=64),
    Training(cell="lstm", layers=1, hidden=2048, batch_size=256, sequence_length=64),
)
WORKLOADS = {"training": (*TRAINING, *LARGER), "sampling": SAMPLING}


def main() -> None:
    """Prints tables of medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    parser.add_argument("parts", nargs="*", choices=[*WORKLOADS, []], metavar="training|sampling", help="All if none.")
    parser.add_argument("--rounds", type=int, default=3, help="How often each peer is measured.")
    arguments = parser.parse_args()
    (device,) = {one.device_kind for one in jax.devices()}
    versions = f"jax {version('jax')}, torch {version('torch')}"
    print(f"{device}; {len(os.sched_getaffinity(0))} cores of {platform.machine()}; {versions}\n")
    for part in arguments.parts or WORKLOADS:
        print(f"{part.capitalize()}, characters per second:\n")
        speedups = ("GPU over CPU", "over PyTorch")
        print(f"| network | {' | '.join((*PEERS, *speedups))} |\n{'| --- ' * (1 + len(PEERS) + len(speedups))}|")
        for workload in WORKLOADS[part]:
            print(_row(workload, _measured(workload, arguments.rounds)), flush=True)
        print()


def _measured(workload: Training | Sampling, rounds: int) -> dict[str, list[Figures]]:
    task = "train" if isinstance(workload, Training) else "generate"
    arguments = [task, json.dumps({"seconds": SECONDS, **workload.as_json()})]
    return in_turn({peer: how + arguments for peer, how in PEERS.items()}, rounds)


def _row(workload: Training | Sampling, results: dict[str, list[Figures]]) -> str:
    gpu, cpu, pytorch = results.values()
    speeds = [f"{median(of_peer, 'chars_per_second'):,.0f}" for of_peer in (gpu, cpu, pytorch)]
    speedups = [f"{ratio(gpu, other, 'chars_per_second'):.2f}" for other in (cpu, pytorch)]
    return f"| {' | '.join((workload.name, *speeds, *speedups))} |"


if __name__ == "__main__":
    main()
