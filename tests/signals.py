"""`python -m tests.signals [TRIES]`: sends commands a signal at a random moment.

Each command must end soon, with the signal's status, and without a traceback.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.cli.conftest import QUICK, TEXT

_LONG = ("--steps", "1000000", *QUICK)
_PATIENCE_SECONDS = 30
_PROGRAM = "import sys; from charloom.cli import main; main(sys.argv[1:])"
# An earlier signal arrives while Python itself starts.
_PYTHON_SECONDS = 0.15


def commands(folder: Path) -> dict[str, list[str]]:
    """Makes the files that the commands need in `folder`, and returns their arguments. Only the last few end soon."""
    (folder / "book.txt").write_text(TEXT)
    train = [sys.executable, "-m", "charloom", "train", "book.txt", "--steps", "50", *QUICK]
    subprocess.run(train, cwd=folder, check=True, capture_output=True)
    return {
        "train": ["train", "book.txt", "--out", "other.safetensors", *_LONG],
        "train, a pipe": ["train", "-", "--out", "third.safetensors", *_LONG],
        "generate": ["generate", "book.safetensors", "--length", "1000000000"],
        "score": ["score", "book.safetensors", "--per", "line", "--top", "3"],
        "classify": ["classify", "book.safetensors", "other.safetensors"],
        "serve": ["serve", "book.safetensors", "--port", "0"],
        "reproduce": ["reproduce", "--quick", "alphabet", "--out", "results"],
        "report": ["report", "book.safetensors", "book.txt"],
        "show": ["show", "book.safetensors"],
        "corpora": ["corpora"],
    }


def result_of_signal(arguments: list[str], folder: Path, number: int, seconds: float) -> str:
    """Sends a command the signal after this many seconds, and returns how the command ended, in a few words."""
    with (
        tempfile.TemporaryFile("w+") as err,
        subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *arguments],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=err,
        ) as process,
    ):
        time.sleep(seconds)
        is_early = process.poll() is None
        process.send_signal(number)
        sent = time.monotonic()
        try:
            status = process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return "FAULT: does not end"
        took = time.monotonic() - sent
        err.seek(0)
        errors = err.read()
    if (status == -number and not errors) or (seconds < _PYTHON_SECONDS and "KeyboardInterrupt" in errors):
        return "ended while Python started"  # a shell reports this as 128 + number, too
    if "Traceback" in errors or "Exception ignored" in errors:
        return f"FAULT: traceback: {errors}"
    if status == 128 + number or (arguments[0] == "serve" and (number, status) == (signal.SIGTERM, 0)):
        return "ended" if took < 3 else "ended after more than 3 s"
    return "had finished before" if not is_early or status == 0 else f"FAULT: status {status}: {errors}"


def attack(tries: int, seed: int = 0) -> dict[str, Counter[str]]:
    """Returns how each command ended, counted over all tries."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        by_name = commands(Path(name))
        results: dict[str, Counter[str]] = {command: Counter() for command in by_name}
        for number in range(tries):
            command = list(by_name)[number % len(by_name)]
            sent = rng.choice([signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
            result = result_of_signal(by_name[command], Path(name), sent, rng.uniform(0, 5) ** 2 / 5)
            results[command][result] += 1
    return results


if __name__ == "__main__":
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the parent process may ignore it
    os.environ.setdefault("PYTHONPATH", os.getcwd())
    for command, results in attack(int(sys.argv[1]) if len(sys.argv) > 1 else 200).items():
        print(f"{command}: " + ", ".join(f"{count} {result}" for result, count in sorted(results.items())))
