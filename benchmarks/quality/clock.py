"""`python -m benchmarks.quality.clock [CASE...]`: checks that runs with a budget end on time, even under load.

Prints one row per case: the budget, the time of the whole command, its share of the budget, the number of step plans,
and the held-out nats. The last column says whether the command ended between 95 % of the budget and 3 seconds more.
The exit status is 1 if one did not. To steal cores, the benchmark starts one busy process per core. Without CASE, all
cases run, which takes 45 minutes. A part of their names selects some, such as `cold` or `records`.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

from benchmarks.anomalies import log_lines
from charloom.machine import available_cores
from charloom.model import load
from charloom.settings import TextSettings
from charloom.text import read_named_corpus

LEAST_SHARE, MOST_SECONDS_MORE = 0.95, 3.0
_SPIN = "while True: pass"
_SMALL_TEXT = 16_384
_RECORDS = 58_000_000
_STOPPED_SECONDS = 20.0


@dataclass(frozen=True)
class Case:
    """The input of a command, and what happens while it runs.

    Attributes:
        name: name of the row.
        text: "reference" (Python's language reference), "small" (16 KB of it) or "records" (58 MB of a log).
        budgets: budgets in seconds.
        thieves: shares of the budget at which stealing cores starts and ends: 0, 0.5, or 2 for the end. None for never.
        is_stopped: whether to stop the process for 20 seconds in the middle.
        is_cold: whether to start with an empty compilation cache.
    """

    name: str
    text: str
    budgets: tuple[int, ...]
    thieves: tuple[float, float] | None = None
    is_stopped: bool = False
    is_cold: bool = False


CASES = (
    Case("alone", "reference", (15, 30, 60)),
    Case("cores stolen from the middle on", "reference", (15, 30, 60), thieves=(0.5, 2.0)),
    Case("cores stolen until the middle", "reference", (15, 30, 60), thieves=(0.0, 0.5)),
    Case("stopped for 20 s", "reference", (15, 30, 60), is_stopped=True),
    Case("cores stolen throughout", "reference", (30, 60), thieves=(0.0, 2.0)),
    Case("16 KB", "small", (8, 15)),
    Case("16 KB, cold cache", "small", (15, 18, 30), is_cold=True),
    Case("16 KB, cold cache, cores stolen throughout", "small", (45,), thieves=(0.0, 2.0), is_cold=True),
    Case("58 MB of records", "records", (90, 300)),
    Case("58 MB of records, cores stolen throughout", "records", (120, 600), thieves=(0.0, 2.0)),
    Case("58 MB of records, cores stolen from the middle on", "records", (120,), thieves=(0.5, 2.0)),
)


def main() -> None:
    """Runs the selected cases one after another."""
    wanted = sys.argv[1:]
    cases = [case for case in CASES if not wanted or any(word in case.name for word in wanted)]
    all_in_time = True
    print("| | budget | seconds | share | plans | nats | in time |\n| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            text = text_of(case.text, Path(folder))
            for budget in case.budgets:
                seconds, plans, nats = run(budget, case, text, Path(folder))
                in_time = plans > 0 and LEAST_SHARE * budget <= seconds <= budget + MOST_SECONDS_MORE
                all_in_time &= in_time
                row = case.name, budget, f"{seconds:.1f}", f"{seconds / budget:.3f}", plans, nats
                print(f"| {' | '.join(map(str, row))} | {'yes' if in_time else '**no**'} |", flush=True)
    sys.exit(0 if all_in_time else 1)


def text_of(name: str, folder: Path) -> Path:
    """Returns the path of the text `name` in `folder`; creates the file if it does not exist."""
    path = folder / f"{name}.txt"
    if path.exists():
        return path
    if name == "records":
        rng, size = Random(0), 0
        with path.open("w") as file:
            while size < _RECORDS:
                size += file.write("".join(f"{line}\n" for line, _ in log_lines(rng, 20_000, 0)))
        return path
    text = str(read_named_corpus("python-reference", TextSettings()).documents[0])
    path.write_text(text[:_SMALL_TEXT] if name == "small" else text)
    return path


def run(budget: int, case: Case, text: Path, folder: Path) -> tuple[float, int, str]:
    """Returns the seconds of a command without those it was stopped, its number of plans, and its nats or its error."""
    model = folder / "model.safetensors"
    model.unlink(missing_ok=True)
    command = [sys.executable, "-m", "charloom", "train", str(text), "--out", str(model)]
    command += ["--budget", f"{budget}s", "--json", *["--records"] * (case.text == "records")]
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | ({"XDG_CACHE_HOME": cache} if case.is_cold else {})
        begin, stopped = time.monotonic(), 0.0
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        thieves: list[subprocess.Popen[bytes]] = []
        try:
            steal_from, steal_until = case.thieves or (2.0, 2.0)
            if steal_from == 0:
                thieves = steal()
            time.sleep(budget / 2)
            if case.is_stopped:
                os.kill(process.pid, signal.SIGSTOP)
                time.sleep(_STOPPED_SECONDS)
                os.kill(process.pid, signal.SIGCONT)
                stopped = _STOPPED_SECONDS
            if steal_from == 0.5:
                thieves = steal()
            if steal_until == 0.5:
                end(thieves)
            out, err = process.communicate()
            seconds = time.monotonic() - begin - stopped
        finally:
            end(thieves)
    if process.returncode:
        return seconds, 0, err.strip().splitlines()[-1]
    plans = load(model).training["step_plan"]
    return seconds, len(plans) or 1, f"{json.loads(out)['validation_nats_per_char']:.3f}"


def steal() -> list[subprocess.Popen[bytes]]:
    """Starts one busy process per core, which takes half of the core's time; returns the processes."""
    return [subprocess.Popen([sys.executable, "-c", _SPIN]) for _ in range(available_cores())]


def end(thieves: list[subprocess.Popen[bytes]]) -> None:
    """Ends the processes that still run."""
    for thief in thieves:
        thief.kill()
        thief.wait()


if __name__ == "__main__":
    main()
