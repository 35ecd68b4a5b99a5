"""Peers run in processes of their own, in turn, several rounds: machines are shared, and medians bear that."""

import json
import statistics
import subprocess
import sys
from typing import Any

Figures = dict[str, Any]
Rows = list[tuple[str, str, str]]


def in_turn(module: str, peers: list[str], rounds: int) -> dict[str, list[dict[str, float]]]:
    """Returns what `python -m module PEER` printed as JSON, for each peer and round."""
    results: dict[str, list[dict[str, float]]] = {peer: [] for peer in peers}
    for _ in range(rounds):
        for peer in peers:
            done = subprocess.run([sys.executable, "-m", module, peer], capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{module} {peer} failed:\n{done.stderr[-2000:]}")
            results[peer].append(json.loads(done.stdout.splitlines()[-1]))
    return results


def median(results: list[dict[str, float]], key: str) -> float:
    """Returns the median of `key` over rounds."""
    return statistics.median(result[key] for result in results)
