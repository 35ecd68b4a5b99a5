"""`python -m benchmarks.quality.clock`: whether commands end when their time is up, on a machine that is not steady.

Prints a row for each case: the budget, what the whole command took, that as a share, how many plans of the updates
there were, and the validation's nats. Cores are stolen by as many processes that compute as there are cores,
for half of the time.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from charloom.machine import available_cores
from charloom.model import load

_SPIN = "while True: pass"


def main() -> None:
    """Runs each case in turn."""
    print("| | budget | seconds | share | plans | nats |\n| --- | --- | --- | --- | --- | --- |")
    for budget in (15, 30, 60):
        for case in ("alone", "cores stolen from the middle on", "cores stolen until the middle", "stopped for 20 s"):
            with tempfile.TemporaryDirectory() as folder:
                seconds, plans, nats = run(budget, case, Path(folder) / "model.safetensors")
            print(f"| {case} | {budget} | {seconds:.1f} | {seconds / budget:.3f} | {plans} | {nats:.3f} |", flush=True)


def run(budget: int, case: str, model: Path) -> tuple[float, int, float]:
    """Returns the seconds that a command took, less those that it was stopped; its plans; and its nats."""
    begin, stopped = time.monotonic(), 0.0
    command = [sys.executable, "-m", "charloom", "train", "python-reference", "--out", str(model)]
    command += ["--budget", f"{budget}s", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    thieves: list[subprocess.Popen[bytes]] = []
    if case == "cores stolen until the middle":
        thieves = steal()
    time.sleep(budget / 2)
    if case == "cores stolen from the middle on":
        thieves = steal()
    else:
        for thief in thieves:
            thief.kill()
    if case == "stopped for 20 s":
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(20)
        os.kill(process.pid, signal.SIGCONT)
        stopped = 20.0
    out, _ = process.communicate()
    seconds = time.monotonic() - begin - stopped
    for thief in thieves:
        thief.kill()
        thief.wait()
    plans = load(model).training["pace"]
    return seconds, len(plans) or 1, float(json.loads(out)["validation_nats_per_char"])


def steal() -> list[subprocess.Popen[bytes]]:
    """Returns processes that take half of every core from whoever shares it with them."""
    return [subprocess.Popen([sys.executable, "-c", _SPIN]) for _ in range(available_cores())]


if __name__ == "__main__":
    main()
