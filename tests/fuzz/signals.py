"""Signals at random moments of every command: each must end it soon, with the status of the signal."""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.runner import MIN_CASES, Tally

_PATIENCE = 15.0
"""Seconds within which a signal must end a command."""
_MAX_DELAY = 3.0
_PARALLEL = 3
_SIGNALS = (signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# None of these ends within the patience without a signal, so status 0 means that a signal was lost.
_ENDLESS = {
    "train": ["train", "../book.txt", "--out", "m.safetensors", "--hidden", "32", "--steps", "10000000", "--force"],
    "train --run": [
        "train",
        "../book.txt",
        "--out",
        "r.safetensors",
        "--hidden",
        "32",
        "--steps",
        "10000000",
        "--run",
    ],
    "generate": ["generate", "../chars.safetensors", "--length", "200000000"],
    "score": ["score", "../chars.safetensors", "../long.txt"],
    "score -": ["score", "../chars.safetensors", "-", "--per", "line"],
    "classify": ["classify", "../chars.safetensors", "../records.safetensors", "--text", "../long.txt"],
    "serve": ["serve", "../chars.safetensors", "--port", "0"],
    "reproduce": ["reproduce", "--full", "--out"],
}
_GRACEFUL = ("serve",)
"""Commands that a signal ends with status 0."""


def fuzz_signals(samples: Path, scratch: Path, rng: random.Random, until: float, max_cases: int) -> Tally:
    """Starts commands, and sends each of them a signal after a random delay."""
    tally = Tally("signals")
    for name in ("book.txt", "chars.safetensors", "records.safetensors"):
        shutil.copy(samples / name, scratch / name)
    (scratch / "long.txt").write_text((samples / "book.txt").read_text() * 20_000)
    cases = [
        (rng.choice(list(_ENDLESS)), rng.choice(_SIGNALS), rng.uniform(0.05, _MAX_DELAY)) for _ in range(max_cases)
    ]

    def attempt(numbered: tuple[int, tuple[str, signal.Signals, float]]) -> None:
        number, case = numbered
        if number < MIN_CASES or time.monotonic() < until:
            _interrupt(tally, scratch, *case)

    with ThreadPoolExecutor(_PARALLEL) as pool:
        list(pool.map(attempt, enumerate(cases)))
    return tally


def _interrupt(tally: Tally, scratch: Path, name: str, number: signal.Signals, delay: float) -> None:
    folder = Path(tempfile.mkdtemp(dir=scratch))
    arguments = [*_ENDLESS[name]]
    if arguments[-1] in ("--run", "--out"):
        arguments.append("folder")
    case = f"{name}, {number.name} after {delay:.2f} s"
    with tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "charloom", *arguments],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=err,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        time.sleep(delay)
        process.send_signal(number)
        try:
            status: int | None = process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            status = None
        assert process.stdin is not None
        process.stdin.close()
        err.seek(0)
        stderr = err.read().decode("utf-8", "replace")
    expected = (128 + number, -number, *((0,) if name in _GRACEFUL else ()))
    is_complaint = "Traceback" in stderr or "Exception ignored" in stderr
    if is_complaint and "charloom" not in stderr.replace("'charloom", ""):
        tally.stopped += 1  # Python itself ended before charloom's first line
    elif status not in expected or is_complaint:
        tally.fault(f"{case}: status {status}, {stderr[-1500:]!r}")
    else:
        tally.stopped += 1
