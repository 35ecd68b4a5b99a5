"""`python -m benchmarks.serving`: how fast a server answers one stream and a thousand, and what a fuzzer finds.

`charloom serve` serves an LSTM of 512 units (embedding 64, 65 characters) with random weights, at its default settings.
A second process on the same machine sends the requests. Their number and time are bounded. The server gets `--threads
N`. `--quick` leaves out the fuzzer.
"""

import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from charloom.model import TextModel
from charloom.models import Network
from charloom.settings import NetworkSettings, TextSettings
from charloom.text import Vocabulary

CHARACTERS = "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ROUNDS = 5
EXAMPLES = 1_700
"""The number of examples for each request with a body: about 6,000 in all."""


@contextlib.contextmanager
def server(model: Path, *options: str) -> Iterator[tuple[int, int]]:
    """Yields the port and the process id of a server."""
    command = [sys.executable, "-m", "charloom", "serve", str(model), "--port", "0", *options]
    with tempfile.TemporaryFile("w+") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            port = None
            for _ in range(600):
                log.seek(0)
                if (found := re.search(r"127\.0\.0\.1:(\d+): ready", log.read())) is not None:
                    port = int(found[1])
                    break
                time.sleep(0.1)
                if process.poll() is not None:
                    break
            if port is None:
                log.seek(0)
                sys.exit(f"the server did not start: {log.read()}")
            yield port, process.pid
        finally:
            process.terminate()


def load(port: int, streams: int, characters: int) -> dict[str, object]:
    """Returns the results of a load from another process."""
    command = [sys.executable, "-m", "benchmarks.serving.load", str(port), str(streams), str(characters)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def memory(process: int) -> int:
    """Returns the memory of a process in bytes."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    assert found is not None  # Linux has it
    return int(found[1]) * 1024


def growth(port: int, process: int, streams: int) -> float:
    """Returns how many bytes the server grows per open stream, with `streams` of them."""
    before, most = memory(process), 0
    command = [sys.executable, "-m", "benchmarks.serving.load", str(port), str(streams), "200"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as client:
        while client.poll() is None:
            most = max(most, memory(process))
            time.sleep(0.02)
    return (most - before) / streams


def sent_in_time(port: int) -> tuple[float, float]:
    """Returns the engine's number of rounds, and how many of them were sent within 20 ms of their first character."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        metrics = answer.read().decode()
    count, in_time = (
        re.search(rf"^charloom_sending_seconds_{name} (\S+)$", metrics, re.MULTILINE)
        for name in ("count", r'bucket{le="0\.02"}')
    )
    assert count is not None
    assert in_time is not None  # the server has both
    return float(count[1]), float(in_time[1])


def fuzz(port: int) -> str:
    """Returns how many hostile requests schemathesis made from the server's OpenAPI document, and what it found."""
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"http://127.0.0.1:{port}/openapi.json"]
    options = ["--checks", "not_a_server_error", "--phases", "fuzzing", "--mode", "all", "--continue-on-failure"]
    counts = ["--max-examples", str(EXAMPLES), "--no-color"]
    done = subprocess.run([*command, *options, *counts], capture_output=True, text=True, timeout=1800)
    return "\n".join(
        line for line in done.stdout.splitlines() if re.search(r"generated|Failures|❌|Server error", line)
    )


def main() -> None:
    """Prints the figures."""
    options = [word for word in sys.argv[1:] if word != "--quick"]
    settings = NetworkSettings(hidden=512, embedding=64)
    network = Network.init(settings, len(CHARACTERS), 0, np.random.default_rng(0))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lstm.safetensors"
        TextModel(network, Vocabulary("chars", CHARACTERS), settings, TextSettings()).save(path)
        with server(path, *options) as (port, process):
            print(f"{os.cpu_count()} processors; medians of {ROUNDS} rounds\n\n| | |\n| --- | --- |", flush=True)
            load(port, 1, 100)
            grown = growth(port, process, 1000)
            print(f"| memory growth per open stream, with 1,000 of them, KB | {grown / 1024:.0f} |", flush=True)
            firsts = [load(port, 1, 100)["first"][0] for _ in range(4 * ROUNDS)]
            print(f"| one stream, first character, ms | {1000 * statistics.median(firsts):.1f} |", flush=True)
            one = [load(port, 1, 20_000) for _ in range(ROUNDS)]
            print(f"| one stream, characters per second | {rate(one):,.0f} |", flush=True)
            rounds, in_time = sent_in_time(port)
            many = [load(port, 256, 1_000) for _ in range(ROUNDS)]
            rounds, in_time = (now - before for now, before in zip(sent_in_time(port), (rounds, in_time), strict=True))
            print(f"| 256 streams in parallel, characters per second | {rate(many):,.0f} |")
            print(f"| the same, rounds sent within 20 ms of their first character | {in_time / rounds:.1%} |")
            print(f"| the same, events per second | {rate(many, 'events'):,.0f} |", flush=True)
            thousand = [load(port, 1000, 200) for _ in range(ROUNDS)]
            problems = [problem for one in thousand for problem in one["problems"]]
            print(f"| 1,000 streams of 200 characters, errors in {ROUNDS} rounds | {len(problems)} {problems[:3]} |")
            last = statistics.median(float(np.quantile(one["first"], 0.99)) for one in thousand)
            print(f"| the same, 99th percentile to the first character, s | {last:.2f} |")
            print(f"| the same, characters per second | {rate(thousand):,.0f} |", flush=True)
            if "--quick" not in sys.argv:
                print(f"\nschemathesis:\n\n{fuzz(port)}")


def rate(rounds: list[dict], what: str = "characters") -> float:
    """Returns the median over the rounds of `what` per second."""
    return statistics.median(one[what] / one["seconds"] for one in rounds)


if __name__ == "__main__":
    main()
