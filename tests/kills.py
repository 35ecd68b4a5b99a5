"""`python -m tests.kills [KILLS]`: kills a run at random moments and resumes it; it must give the same model.

Prints the number of kills and the states of the folder. Fails if the model file is damaged after a kill, or if the last
one differs, in any byte, from that of an uninterrupted run.
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

from charloom import CharloomError, load

# Checkpoints are frequent, so that some kills happen while one is written.
_PROGRAM = """
import sys
from charloom.runs import run_folder
run_folder._MIN_SECONDS_BETWEEN = run_folder._MAX_TIME_FRACTION = 0.05
from charloom.cli import main
main(sys.argv[1:])
"""
_SETTINGS = (
    "--hidden",
    "64",
    "--batch-size",
    "8",
    "--sequence-length",
    "32",
    "--dropout",
    "0.1",
    "--validation",
    "0.1",
    "--seed",
    "1",
)
_STEPS = 60_000


def main() -> None:
    """Runs without kills, then with kills, and compares the models."""
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    print(kill(kills, _STEPS))


def kill(kills: int, steps: int) -> str:
    """Returns a sentence about the result of `kills` kills.

    Raises:
        SystemExit: a model was lost or differs.
    """
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = "".join(rng.choice(["the quick brown fox\n", "jumps over ", "the lazy dog. "]) for _ in range(4_000))
        (folder / "book.txt").write_text(text)
        command = ("train", "book.txt", "--steps", str(steps), *_SETTINGS)
        start = time.monotonic()
        if _start(folder, *command, "--out", "whole.safetensors").wait():
            raise SystemExit("the run without kills failed")
        whole_seconds = time.monotonic() - start
        out, run = folder / "killed.safetensors", folder / "run"
        found: Counter[str] = Counter()
        done = 0
        while True:
            resumes = (run / "run.json").exists()
            process = _start(
                folder, *(("train", "--resume", "run") if resumes else (*command, "--run", "run", "--out", out.name))
            )
            try:
                if done % 5 != 4:  # every fifth kill may come before the first checkpoint
                    _wait_for_checkpoint(run, process)
                wait = None if done >= kills else rng.uniform(0.0, max(1.0, whole_seconds / 3))
                if process.wait(wait):
                    raise SystemExit(f"a run failed after {done} kills")
                if done >= kills:
                    break
                # The run finished before the next kill, so start again.
                _require_same(folder / "whole.safetensors", out)
                subprocess.run(["rm", "-r", str(run), str(out)], check=True)
                found["finished, started again"] += 1
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                done += 1
                found[f"{len(list(run.glob('checkpoint-*.safetensors')))} checkpoints"] += 1
                if list(run.glob(".*.tmp")):
                    found["while a file was written"] += 1
                _require_undamaged(out)
        _require_same(folder / "whole.safetensors", out)
    states = ", ".join(f"{count} × {state}" for state, count in sorted(found.items()))
    return f"{done} kills: no model lost, no resume that differs ({states})"


def _start(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, *arguments],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def _wait_for_checkpoint(run: Path, process: subprocess.Popen[bytes]) -> None:
    before = set(run.glob("checkpoint-*"))
    while process.poll() is None and set(run.glob("checkpoint-*")) <= before:
        time.sleep(0.01)


def _require_undamaged(model: Path) -> None:
    try:
        if model.exists():
            load(model)
    except CharloomError as error:
        raise SystemExit(f"a model was lost: {error}") from None


def _require_same(wanted: Path, got: Path) -> None:
    if wanted.read_bytes() != got.read_bytes():
        raise SystemExit("a resumed run gave a different model")


if __name__ == "__main__":
    main()
