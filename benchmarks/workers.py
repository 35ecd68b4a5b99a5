"""Runs each peer in a separate process, in turn, for several rounds. Medians tolerate that machines are shared."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from charloom.machine import available_cores

Figures = dict[str, Any]
Row = tuple[str, ...]

DOES_NOT_WORK = "does not work"
"""The key under which a peer prints why it does not work on this machine."""
OWN = "charloom"
"""What the names of charloom's own programs begin with. All others are peers."""
GOAL_COLUMNS: Row = ("goal", "measured", "required", "target", "result")


class Table(NamedTuple):
    """A table of a page.

    Attributes:
        title: its heading.
        rows: the columns' names, then the figures.
        note: text between the heading and the table.
    """

    title: str
    rows: list[Row]
    note: str = ""


class Measured(NamedTuple):
    """What a part of the benchmarks measured.

    Attributes:
        figures: of all rounds, for JSON.
        tables: of the page on speed.
        details: tables of the page of details.
        goals: rows of the table of goals.
    """

    figures: Figures
    tables: list[Table]
    details: list[Table]
    goals: list[Row]


def in_turn(
    peers: Mapping[str, list[str]], rounds: int, before: Callable[[], Any] = lambda: None
) -> dict[str, list[Figures]]:
    """Returns the figures that each peer printed in each round.

    Args:
        peers: the arguments of each peer. Those before the module's name set environment variables.
        rounds: how often each peer runs.
        before: called before each round.
    """
    results: dict[str, list[Figures]] = {peer: [] for peer in peers}
    for _ in range(rounds):
        before()
        for peer, arguments in peers.items():
            results[peer].append(run_peer(arguments))
    return results


def run_peer(arguments: list[str]) -> Figures:
    """Returns the JSON object that a peer printed last."""
    module = next(place for place, argument in enumerate(arguments) if "=" not in argument)
    variables = dict(argument.split("=", 1) for argument in arguments[:module])
    # Compilation is measured separately, so no run may use what an earlier one compiled.
    uncached = {"JAX_ENABLE_COMPILATION_CACHE": "0", "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
    environment = {**os.environ, **uncached, "TF_CPP_MIN_LOG_LEVEL": "3", **variables}
    done = subprocess.run([sys.executable, "-m", *arguments[module:]], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def median(results: list[Figures], key: str) -> float:
    """Returns the median of `key` over the rounds."""
    return statistics.median(result[key] for result in results)


def ratio(results: list[Figures], others: list[Figures], key: str) -> float:
    """Returns the median of the rounds' ratios: `key` in `results` divided by `key` in `others`."""
    return statistics.median(one[key] / other[key] for one, other in zip(results, others, strict=True))


def works(results: list[Figures]) -> bool:
    """Returns whether a program gave figures in each round."""
    return not any(DOES_NOT_WORK in result for result in results)


def best_peer(results: Mapping[str, list[Figures]]) -> str:
    """Returns the name of the fastest program that is not charloom's."""
    peers = [peer for peer, of in results.items() if not peer.startswith(OWN) and works(of)]
    return max(peers, key=lambda peer: median(results[peer], "chars_per_second"))


def over_best(results: Mapping[str, list[Figures]]) -> float:
    """Returns charloom's speedup over the best of its peers."""
    return ratio(results[OWN], results[best_peer(results)], "chars_per_second")


def speeds(results: Mapping[str, list[Figures]]) -> Row:
    """Returns each program's characters per second, the best peer, and the speedup over it."""
    figures = [figure(of, "chars_per_second", ",.0f") for of in results.values()]
    return (*figures, best_peer(results), f"{over_best(results):.2f}")


def figure(results: list[Figures], key: str, form: str, unit: float = 1.0) -> str:
    """Returns the median of `key` over the rounds, in units, as `format` writes it."""
    return format(median(results, key) / unit, form) if works(results) else DOES_NOT_WORK


def reasons(results: Mapping[str, Mapping[str, list[Figures]]]) -> str:
    """Returns sentences on the programs that do not work, for the note of a table; "" if all do."""
    found = {
        f"{peer} does not work ({of[0][DOES_NOT_WORK]})."
        for of_workload in results.values()
        for peer, of in of_workload.items()
        if not works(of)
    }
    return "".join(f" {sentence}" for sentence in sorted(found))


def with_best_threads(measure: Callable[[int], float]) -> Figures:
    """Returns the characters per second with one thread or with one per core, whichever is faster.

    >>> with_best_threads(lambda threads: 100 / threads)
    {'chars_per_second': 100.0, 'threads': 1}
    """
    speeds = {threads: measure(threads) for threads in sorted({1, available_cores()})}
    threads = max(speeds, key=lambda threads: speeds[threads])
    return {"chars_per_second": speeds[threads], "threads": threads}


def goal(name: str, figure: float, bounds: tuple[float, float], form: str, *, low: bool = False) -> Row:
    """Returns a row of the table of goals.

    Args:
        name: what was measured.
        figure: the result.
        bounds: what is required, and the target.
        form: the format of the figure, as `format` takes it.
        low: whether less is better.
    """
    required, target = (figure <= bound if low else figure >= bound for bound in bounds)
    result = "target reached" if target else "requirement met" if required else "missed"
    texts = [f"{bound:.0%}" if form.endswith("%") else f"{bound:,.6g}" for bound in bounds]
    return (name, format(figure, form), *(f"{'at most ' if low else ''}{text}" for text in texts), result)


def memory_bytes() -> int:
    """Returns the memory that this process holds now; 0 on systems other than Linux."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


class MachineLoad:
    """How much of the machine other programs used since this object was made; known on Linux only."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._busy, self._own = _busy_seconds(), _own_seconds()

    def others(self) -> float:
        """Returns the share of processor time that other programs, or other virtual machines, have used."""
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
