"""`python -m benchmarks [--rounds N] [PART...]`: measures charloom next to its peers, each at its best.

It prints two pages and keeps them in build/bench: bench.md, which docs/speed.md is copied from, and bench-details.md,
for docs/lab/speed.md. All figures are in bench.json.
"""

import argparse
import json
import platform
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path

from benchmarks import generation, line_scoring, record_sampling, startup, training
from benchmarks.limit import FLOAT32
from benchmarks.workers import GOAL_COLUMNS, Figures, MachineLoad, Row, Table
from charloom.kernels import kernels_in_use
from charloom.machine import available_cores, processor_name

PARTS = {
    "training": training,
    "generation": generation,
    "scoring": line_scoring,
    "records": record_sampling,
    "startup": startup,
}
OUT = Path("build") / "bench"
PACKAGES = ("charloom", "jax", "torch", "onnxruntime", "keras", "tensorflow-cpu")
_OTHERS_MAY_TAKE = 0.05
_PEAKS_MAY_DIFFER = 0.10


def main() -> None:
    """Runs the parts that the command line names, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure charloom next to its peers.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"One of {', '.join(PARTS)}. By default, all.")
    parser.add_argument("--rounds", type=int, default=3, help="How often each peer is measured.")
    asked = parser.parse_args()
    if unknown := [part for part in asked.parts if part not in PARTS]:
        parser.error(f"{unknown[0]} is not one of {', '.join(PARTS)}")
    kernels = kernels_in_use()  # compiled before anything is measured
    load = MachineLoad()
    figures: Figures = {
        "command": " ".join(["python -m benchmarks", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "machine": {"processor": processor_name(), "cores": available_cores(), "system": platform.platform()},
        "kernels": kernels.name,
        "versions": {package: version(package) for package in PACKAGES},
        "rounds": asked.rounds,
    }
    tables: list[Table] = []
    details: list[Table] = []
    goals: list[Row] = []
    OUT.mkdir(parents=True, exist_ok=True)
    for part in asked.parts or PARTS:
        measured = PARTS[part].run(asked.rounds)
        figures |= measured.figures
        tables += measured.tables
        details += measured.details
        goals += measured.goals
        figures["others_share"] = load.others()
        # Written after each part: if a long run is stopped, only its last part is lost.
        (OUT / "bench.json").write_text(json.dumps(figures, indent=1) + "\n")
        (OUT / "bench.md").write_text(page(figures, tables))
        (OUT / "bench-details.md").write_text(details_page(details, goals))
    print(page(figures, tables), details_page(details, goals), sep="\n", end="")


def page(figures: Figures, tables: list[Table]) -> str:
    """Returns the page on speed, in Markdown."""
    machine = figures["machine"]
    facts = [
        ("", ""),
        ("command", f"`{figures['command']}`"),
        ("date", figures["date"]),
        ("machine", f"{machine['processor']}, {machine['cores']} cores"),
        ("kernels", figures["kernels"]),
        ("versions", ", ".join(f"{package} {number}" for package, number in figures["versions"].items())),
    ]
    lines = [
        "# Speed",
        "",
        "charloom next to PyTorch, ONNX Runtime and Keras, on one machine and in one run.[^machine]",
        "",
        *_table_lines(facts),
        "",
        f"Each figure is the median of {figures['rounds']} rounds.",
        "In a round, the programs run one after another, each in a separate process.",
        "A speedup is the median of the rounds' ratios, over the fastest peer of the row.",
        "The [lab notes](lab/speed.md) have shares of the processor's peak, goals, other machines and GPUs.",
        *_sections(tables),
        "",
        f"[^machine]: {machine_state(figures)}",
    ]
    return "\n".join(lines) + "\n"


def details_page(tables: list[Table], goals: list[Row]) -> str:
    """Returns the limits of the machine, shares of its peak, and goals, in Markdown."""
    if goals:
        note = "The requirements and targets were set before the measurement."
        tables = [*tables, Table("Goals", [GOAL_COLUMNS, *goals], note)]
    return "\n".join(["# Details", *_sections(tables)]) + "\n"


def machine_state(figures: Figures) -> str:
    """Returns a sentence on whether the machine was quiet during the run."""
    reasons = []
    if figures["others_share"] > _OTHERS_MAY_TAKE:
        reasons.append(f"other programs took {figures['others_share']:.0%} of the processors' time")
    peaks = [reading[FLOAT32] for reading in figures.get("peaks", [])]
    if peaks and min(peaks) < (1 - _PEAKS_MAY_DIFFER) * max(peaks):
        reasons.append(f"its peak moved between {min(peaks):.0f} and {max(peaks):.0f} GFLOP/s")
    if reasons:
        return f"The machine was not quiet: {' and '.join(reasons)}. The figures are approximate."
    return f"The machine was quiet: other programs took {figures['others_share']:.1%} of the processors' time."


def _sections(tables: list[Table]) -> list[str]:
    lines: list[str] = []
    for title, rows, note in tables:
        lines += ["", f"## {title}", "", *([note, ""] if note else []), *_table_lines(rows)]
    return lines


def _table_lines(rows: list[Row]) -> list[str]:
    first, *others = rows
    return [_line(first), _line(("---",) * len(first)), *map(_line, others)]


def _line(cells: Row) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
