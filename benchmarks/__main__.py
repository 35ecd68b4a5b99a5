"""`python -m benchmarks`: all of them in turn; JSON in benchmarks/results/, a table on standard output."""

import json
import sys
from pathlib import Path

from benchmarks import generation, startup, training
from charloom.machine import available_cores, processor_name

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Runs the benchmarks named on the command line, or all."""
    benchmarks = {"training": training, "generation": generation, "startup": startup}
    print(f"{processor_name()}, {available_cores()} cores\n")
    print("| what | measured | wanted |\n| --- | --- | --- |")
    for name in sys.argv[1:] or benchmarks:
        figures, rows = benchmarks[name].run()
        for row in rows:
            print(f"| {' | '.join(row)} |", flush=True)
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
