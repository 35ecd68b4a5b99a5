"""`python -m benchmarks.large [MB]`: training on a text too large for memory, next to a small one, with one model.

Prints how fast the text is encoded, the peak of the process's anonymous memory (without files mapped into memory), and
the training speed on both texts. Runs on the two texts take turns, and speeds are medians.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

MEGABYTES, SMALL_MEGABYTES = 2_000, 2
ROUNDS = 5
STEPS = 400
NETWORK = ("--hidden", "256", "--batch-size", "16", "--sequence-length", "64")
_LINES = 200_000


def main() -> None:
    """Makes both texts and measures."""
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else MEGABYTES
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_text(folder / "large.txt", megabytes)
        write_text(folder / "small.txt", SMALL_MEGABYTES)
        cache = ("--cache", str(folder / "cache"))
        _, said, anonymous = train(folder / "large.txt", *cache)
        print(next(line for line in said.splitlines() if "encoded at" in line).partition(" into ")[0])
        speeds: dict[str, list[float]] = {"small": [], "large": []}
        for _ in range(ROUNDS):
            speeds["small"].append(train(folder / "small.txt")[0])
            large, _, again = train(folder / "large.txt", *cache)
            speeds["large"].append(large)
            anonymous = max(anonymous, again)
        small, large = (statistics.median(of) for of in speeds.values())
        pairs = zip(speeds["large"], speeds["small"], strict=True)
        share = statistics.median(of_large / of_small for of_large, of_small in pairs)
        print(f"{megabytes:,} MB: at most {anonymous / 1e6:,.0f} MB of anonymous memory (goal: 1,000 MB)")
        print(
            f"{large:,.0f} characters per second, {small:,.0f} with {SMALL_MEGABYTES} MB in memory: {share:.1%} "
            "(goal: 95 %)"
        )


def write_text(path: Path, megabytes: int) -> None:
    """Writes lines of made-up words in random order. Some words have letters beyond ASCII."""
    chance = np.random.default_rng(0)
    letters = np.array(list("eeeetttaaooiinnsshhrrdlcumwfgypbvk"))
    words = ["".join(chance.choice(letters, length)) for length in chance.integers(2, 9, 5_000)] + ["naïve", "“so”"]
    lines = [" ".join(words[at] for at in chance.integers(0, len(words), 12)) + "\n" for _ in range(_LINES)]
    written = 0
    with open(path, "w", encoding="utf-8") as file:
        while written < megabytes * 1e6:
            part = "".join(lines[at] for at in chance.integers(0, _LINES, 20_000))
            written += len(part.encode())
            file.write(part)


def train(source: Path, *arguments: str) -> tuple[float, str, int]:
    """Returns a short run's characters per second, its messages, and its peak of anonymous memory in bytes."""
    out = source.with_suffix(".safetensors")
    command = ["charloom", "train", str(source), "--out", str(out), "--steps", str(STEPS), *NETWORK, *arguments]
    process = subprocess.Popen(
        [sys.executable, "-m", *command, "--validation", "10000", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    most = 0
    while process.poll() is None:
        most = max(most, anonymous_bytes(process.pid))
        time.sleep(0.02)
    report, messages = process.communicate()
    if process.returncode:
        raise SystemExit(messages)
    return json.loads(report)["chars_per_second"], messages, most


def anonymous_bytes(process: int) -> int:
    """Returns the anonymous memory of a process now; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), 0)


if __name__ == "__main__":
    main()
