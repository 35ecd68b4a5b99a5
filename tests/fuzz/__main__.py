"""`python -m tests.fuzz [--seconds 600] [--seed N] [PART...]`: attacks charloom, and counts the outcomes.

Exits with status 1 if any attempt gave neither a result nor a clear refusal. The same seed makes the same attempts.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.command_lines import fuzz_command_lines
from tests.fuzz.files import fuzz_caches, fuzz_models, fuzz_results, fuzz_runs
from tests.fuzz.http_requests import fuzz_requests
from tests.fuzz.runner import Tally
from tests.fuzz.signals import fuzz_signals

Part = Callable[[Path, Path, random.Random, float, int], Tally]

# Two queues, which run in parallel. Each part gets a share of the time, and ends earlier after its last attempt.
_QUEUES: list[list[tuple[str, Part, int, float]]] = [
    [
        ("models", fuzz_models, 3_500, 0.45),
        ("runs", fuzz_runs, 1_000, 0.30),
        ("caches", fuzz_caches, 450, 0.15),
        ("results", fuzz_results, 50, 0.10),
    ],
    [
        ("requests", fuzz_requests, 5_000, 0.25),
        ("commands", fuzz_command_lines, 1_000, 0.35),
        ("signals", fuzz_signals, 200, 0.40),
    ],
]

_PRINTED = 20
"""Maximum number of faults that are printed per part."""


def main() -> None:
    """Runs the parts and prints a table, then the faults."""
    names = [name for queue in _QUEUES for name, *_ in queue]
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=float, default=600.0, help="time for all attempts together")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the attempts")
    parser.add_argument(
        "parts", nargs="*", choices=[*names, []], help=f"parts to run, of {', '.join(names)}; all by default"
    )
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGHUP):  # a shell makes background jobs ignore them
        signal.signal(number, signal.SIG_DFL)
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
    with tempfile.TemporaryDirectory(prefix="charloom-fuzz-") as folder:
        samples = Path(folder) / "samples"
        samples.mkdir()
        # In a separate process: this one forks others, and JAX's threads do not survive a fork.
        subprocess.run([sys.executable, "-m", "tests.fuzz.samples", str(samples)], check=True)
        begin = time.monotonic()  # the samples take a minute if nothing has been compiled yet
        chosen = [[part for part in queue if not arguments.parts or part[0] in arguments.parts] for queue in _QUEUES]
        with ThreadPoolExecutor(len(_QUEUES)) as pool:
            tallies = [
                tally
                for queue in pool.map(lambda queue: _run(queue, samples, arguments.seconds, arguments.seed), chosen)
                for tally in queue
            ]
    _print(tallies, arguments.seed, time.monotonic() - begin)
    sys.exit(any(tally.faults for tally in tallies))


def _run(queue: list[tuple[str, Part, int, float]], samples: Path, seconds: float, seed: int) -> list[Tally]:
    tallies, end = [], time.monotonic() + seconds
    shares = sum(share for *_, share in queue)
    for name, part, max_cases, share in queue:
        scratch = samples.parent / name
        scratch.mkdir()
        until = time.monotonic() + (end - time.monotonic()) * share / shares
        tallies.append(part(samples, scratch, random.Random(f"{seed} {name}"), until, max_cases))
        shares -= share
    return tallies


def _print(tallies: list[Tally], seed: int, seconds: float) -> None:
    print("| | attempts | results | refused | stopped | faults |\n| --- | --- | --- | --- | --- | --- |")
    for tally in tallies:
        counts = (tally.cases, tally.results, tally.refused, tally.stopped, len(tally.faults))
        print(f"| {tally.name} | {' | '.join(f'{count:,}' for count in counts)} |")
    print(f"\nseed {seed}, {seconds:.0f} s")
    for tally in tallies:
        for fault in tally.faults[:_PRINTED]:
            print(f"\n{tally.name}: {fault}")
        if len(tally.faults) > _PRINTED:
            print(f"\n{tally.name}: and {len(tally.faults) - _PRINTED:,} more")


if __name__ == "__main__":
    main()
