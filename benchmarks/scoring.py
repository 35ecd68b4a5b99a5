"""`python -m benchmarks.scoring`: how fast texts are scored, and how soon a line from a pipe gets its score.

The model is an LSTM of 512 units (embedding 42, 57 characters) with random weights. Three things are measured:

- Many lines scored in parallel, and one long text. Both speeds are medians of rounds.
- The time from writing a line to the pipe of `charloom score - --per line` until its score arrives, for 300 lines of 1
  to 150 characters.
- A line of ten million characters with 64 units, and the command's peak memory. `--quick` leaves it out.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from charloom.model import TextModel
from charloom.models import Network
from charloom.settings import NetworkSettings, TextSettings
from charloom.text import Vocabulary

CHARACTERS = "\n" + "".join(map(chr, range(ord("A"), ord("A") + 56)))
LINES, LONG, ROUNDS = 4_000, 60_000, 5
PIPED, LONGEST = 300, 150
ENDLESS = 10_000_000


def model_of(hidden: int) -> TextModel:
    """Returns a model with initial weights."""
    settings = NetworkSettings(hidden=hidden, embedding=42)
    network = Network.init(settings, len(CHARACTERS), 0, np.random.default_rng(0))
    return TextModel(network, Vocabulary("chars", CHARACTERS), settings, TextSettings())


def line_of(rng: np.random.Generator, length: int) -> str:
    """Returns a line of random characters."""
    return "".join(rng.choice(list(CHARACTERS[1:]), length))


def rate(characters: int, score: Callable[[], object]) -> float:
    """Returns the characters per second of `score`: the median of the rounds after the first."""
    seconds = []
    for _ in range(ROUNDS + 1):
        began = time.perf_counter()
        score()
        seconds.append(time.perf_counter() - began)
    return characters / statistics.median(seconds[1:])


def answered(model: Path, rng: np.random.Generator) -> list[float]:
    """Returns the seconds from each line's newline to its score."""
    command = [sys.executable, "-m", "charloom", "score", str(model), "-", "--per", "line", "--json"]
    seconds = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(1, PIPED + 1):
            line = f"{line_of(rng, int(rng.integers(1, LONGEST + 1)))}\n".encode()
            began = time.perf_counter()
            process.stdin.write(line)
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
            seconds.append(time.perf_counter() - began)
            assert answer["line"] == number
            time.sleep(0.01)  # lines of a log arrive one by one
        process.stdin.close()
    return seconds[1:]  # the first includes the start of the command


def endless(model: Path) -> tuple[float, int]:
    """Returns the characters per second of one line of ten million, and the peak memory in bytes."""
    command = [sys.executable, "-m", "charloom", "score", str(model), "-", "--per", "line", "--json"]
    piece = CHARACTERS[1:].encode() * 1000
    began = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def write(pipe=process.stdin):
            for _ in range(ENDLESS // len(piece)):
                pipe.write(piece)
            pipe.close()

        writer = threading.Thread(target=write)
        writer.start()
        answer = json.loads(process.stdout.readline())
        writer.join()
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0
    return answer["characters"] / (time.perf_counter() - began), usage.ru_maxrss * 1024


def main() -> None:
    """Prints the figures."""
    rng = np.random.default_rng(1)
    model = model_of(512)
    lines = [f"{line_of(rng, int(length))}\n" for length in rng.integers(20, LONGEST + 1, LINES)]
    many = rate(sum(map(len, lines)), lambda: model.score_many(lines))
    text = line_of(rng, LONG)
    print(f"many lines: {many:,.0f} characters per second; one long text: {rate(LONG, lambda: model.score(text)):,.0f}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        model.save(path)
        seconds = sorted(answered(path, rng))
        print(
            f"a line from a pipe: {1000 * statistics.median(seconds):.1f} ms (median), "
            f"{1000 * seconds[len(seconds) * 99 // 100]:.1f} ms (99th percentile), "
            f"{1000 * seconds[-1]:.1f} ms (longest)"
        )
        if "--quick" not in sys.argv:
            model_of(64).save(path)
            speed, memory = endless(path)
            print(f"a line of {ENDLESS:,} characters: {speed:,.0f} characters per second in {memory / 1e6:,.0f} MB")


if __name__ == "__main__":
    main()
