"""`python -m tests.kills [KILLS]`: a run is killed at random moments, resumed, and must give the same model.

Prints how many kills it took, in which states of the folder, and whether the model file was whole after each of them
and the last one the same, byte for byte, as that of a run that was never killed.
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

# Checkpoints come often, so that kills meet them being written.
_PROGRAM = """
import sys
from charloom.runs import run_folder
run_folder._SECONDS_BETWEEN = run_folder._COST = 0.05
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
_STEPS_MADE = 60_000


def main() -> None:
    """Runs without a kill, then with kills, and compares."""
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    print(kill(kills, _STEPS_MADE))


def kill(kills: int, steps: int) -> str:
    """Returns a sentence on what `kills` kills came to.

    Raises:
        SystemExit: a model was lost, or came out another.
    """
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = "".join(chance.choice(["the quick brown fox\n", "jumps over ", "the lazy dog. "]) for _ in range(4_000))
        (folder / "book.txt").write_text(text)
        begin = ("train", "book.txt", "--steps", str(steps), *_SETTINGS)
        started = time.monotonic()
        if _start(folder, *begin, "--out", "whole.safetensors").wait():
            raise SystemExit("the run without kills failed")
        whole_seconds = time.monotonic() - started
        out, run = folder / "killed.safetensors", folder / "run"
        found: Counter[str] = Counter()
        done = 0
        while True:
            resumes = (run / "run.json").exists()
            process = _start(
                folder, *(("train", "--resume", "run") if resumes else (*begin, "--run", "run", "--out", out.name))
            )
            try:
                if done % 5 != 4:  # else it may also meet the beginning
                    _wait_for_checkpoint(run, process)
                wait = None if done >= kills else chance.uniform(0.0, max(1.0, whole_seconds / 3))
                if process.wait(wait):
                    raise SystemExit(f"went wrong after {done} kills")
                if done >= kills:
                    break
                # Done before the next kill: once more from the beginning.
                _same(folder / "whole.safetensors", out)
                subprocess.run(["rm", "-r", str(run), str(out)], check=True)
                found["finished, started again"] += 1
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                done += 1
                found[f"{len(list(run.glob('checkpoint-*.safetensors')))} checkpoints"] += 1
                if list(run.glob(".*.tmp")):
                    found["while a file was written"] += 1
                _whole(out)
        _same(folder / "whole.safetensors", out)
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


def _whole(model: Path) -> None:
    try:
        if model.exists():
            load(model)
    except CharloomError as error:
        raise SystemExit(f"a model was lost: {error}") from None


def _same(wanted: Path, got: Path) -> None:
    if wanted.read_bytes() != got.read_bytes():
        raise SystemExit("a resumed run gave another model")


if __name__ == "__main__":
    main()
