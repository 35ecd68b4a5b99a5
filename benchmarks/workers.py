"""Peers run in processes of their own, in turn, several rounds: machines are shared, and medians bear that."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Figures = dict[str, Any]
Row = tuple[str, ...]


def in_turn(
    peers: Mapping[str, list[str]], rounds: int, before: Callable[[], Any] = lambda: None
) -> dict[str, list[Figures]]:
    """Returns what `python -m ARGUMENTS` printed as JSON, for each peer and round.

    Args:
        peers: the arguments, by the peer's name; those before the module's name are variables of its environment.
        rounds: how often.
        before: is called before each round.
    """
    results: dict[str, list[Figures]] = {peer: [] for peer in peers}
    for _ in range(rounds):
        before()
        for peer, arguments in peers.items():
            results[peer].append(run_peer(arguments))
    return results


def run_peer(arguments: list[str]) -> Figures:
    """Returns what a peer printed last, as JSON."""
    module = next(place for place, word in enumerate(arguments) if "=" not in word)
    variables = dict(word.split("=", 1) for word in arguments[:module])
    # Compilation is a figure of its own, and must not be kept from run to run.
    environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "0", "TF_CPP_MIN_LOG_LEVEL": "3", **variables}
    done = subprocess.run([sys.executable, "-m", *arguments[module:]], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def median(results: list[Figures], key: str) -> float:
    """Returns the median of `key` over rounds."""
    return statistics.median(result[key] for result in results)


def ratio(results: list[Figures], others: list[Figures], key: str) -> float:
    """Returns the median over rounds of how many times `others` `results` have of `key`, each with its round's."""
    return statistics.median(one[key] / other[key] for one, other in zip(results, others, strict=True))


def verdict(figure: float, wanted: tuple[float, float] | None, *, low: bool = False) -> str:
    """Returns how a figure stands to what must be and what is aimed at; `low` where less is better."""
    if wanted is None:
        return ""
    must, aim = (figure <= bound if low else figure >= bound for bound in wanted)
    return f"{'aim reached' if aim else 'must reached' if must else 'missed'} (must {wanted[0]:g}, aim {wanted[1]:g})"


def random_ids(count: int, vocabulary: int) -> np.ndarray:
    """Returns a text of that many ids, the same each time."""
    return np.random.default_rng(0).integers(0, vocabulary, count).astype(np.int32)


def memory_bytes() -> int:
    """Returns what this process holds now, where Linux tells; else 0."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


class MachineLoad:
    """How much of the machine others took, from this object's making on; where Linux tells."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._busy, self._own = _busy_seconds(), _own_seconds()

    def others(self) -> float:
        """Returns the share of the processors' time that went to others, or to other machines on the same hardware."""
        busy, own = _busy_seconds() - self._busy, _own_seconds() - self._own
        return max(0.0, busy - own) / ((time.monotonic() - self._begin) * (os.cpu_count() or 1))


def _busy_seconds() -> float:
    try:
        user, nice, system, _, _, irq, soft, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    except OSError:
        return _own_seconds()
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
