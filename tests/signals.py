"""Commands that get a signal at a random moment: each ends with the signal's status, soon, and without noise.

python -m tests.signals [TRIES]
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
# A signal that comes sooner meets Python's own beginning.
_PYTHON_SECONDS = 0.15


def commands(folder: Path) -> dict[str, list[str]]:
    """Makes what the commands need in `folder`, and returns their words; none ends soon by itself, but for the last."""
    (folder / "book.txt").write_text(TEXT)
    made = [sys.executable, "-m", "charloom", "train", "book.txt", "--steps", "50", *QUICK]
    subprocess.run(made, cwd=folder, check=True, capture_output=True)
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


def signalled(words: list[str], folder: Path, number: int, seconds: float) -> str:
    """Sends a command the signal after so many seconds, and returns how that ended, in a few words."""
    with (
        tempfile.TemporaryFile("w+") as err,
        subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *words],
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
        said = err.read()
    if (status == -number and not said) or (seconds < _PYTHON_SECONDS and "KeyboardInterrupt" in said):
        return "met Python's own beginning"  # which a shell sees as 128 + number, too
    if "Traceback" in said or "Exception ignored" in said:
        return f"FAULT: noise: {said}"
    if status == 128 + number or (words[0] == "serve" and (number, status) == (signal.SIGTERM, 0)):
        return "ended" if took < 3 else "ended after more than 3 s"
    return "was done before" if not is_early or status == 0 else f"FAULT: status {status}: {said}"


def attack(tries: int, seed: int = 0) -> dict[str, Counter[str]]:
    """Returns for each command how so many tries in all ended."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        named = commands(Path(name))
        ended: dict[str, Counter[str]] = {command: Counter() for command in named}
        for number in range(tries):
            command = list(named)[number % len(named)]
            sent = chance.choice([signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
            how = signalled(named[command], Path(name), sent, chance.uniform(0, 5) ** 2 / 5)
            ended[command][how] += 1
    return ended


if __name__ == "__main__":
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs this may ignore it
    os.environ.setdefault("PYTHONPATH", os.getcwd())
    for command, ways in attack(int(sys.argv[1]) if len(sys.argv) > 1 else 200).items():
        print(f"{command}: " + ", ".join(f"{count} {how}" for how, count in sorted(ways.items())))
