"""`python -m benchmarks [--rounds N] [PART...]`: JSON and Markdown in build/bench, and the page on standard output."""

import argparse
import json
import platform
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path

from benchmarks import generation, startup, training
from benchmarks.workers import Figures, MachineLoad, Row
from charloom.kernels import kernels_in_use
from charloom.machine import available_cores, processor_name

PARTS = {"training": training, "generation": generation, "startup": startup}
OUT = Path("build") / "bench"
PACKAGES = ("charloom", "jax", "torch", "keras", "tensorflow-cpu")
_OTHERS_MAY_TAKE = 0.05
_PEAKS_MAY_DIFFER = 0.10


def main() -> None:
    """Runs the parts that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measures charloom beside its peers.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all of them without one")
    parser.add_argument("--rounds", type=int, default=3, help="how often each peer is measured")
    asked = parser.parse_args()
    if unknown := [part for part in asked.parts if part not in PARTS]:
        parser.error(f"{unknown[0]} is none of {', '.join(PARTS)}")
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
    tables: list[tuple[str, list[Row]]] = []
    OUT.mkdir(parents=True, exist_ok=True)
    for part in asked.parts or PARTS:
        of_part, with_captions = PARTS[part].run(asked.rounds)
        figures |= of_part
        tables += with_captions
        figures["others_share"] = load.others()
        # Written after each part: a long run that is stopped has lost only its last one.
        (OUT / "bench.json").write_text(json.dumps(figures, indent=1) + "\n")
        (OUT / "bench.md").write_text(page(figures, tables))
    print(page(figures, tables), end="")


def page(figures: Figures, tables: list[tuple[str, list[Row]]]) -> str:
    """Returns the Markdown page of the figures."""
    machine = figures["machine"]
    versions = ", ".join(f"{package} {number}" for package, number in figures["versions"].items())
    lines = [
        "# Speed",
        "",
        f"`{figures['command']}`, {figures['date']}, {machine['processor']}, {machine['cores']} cores; {versions}; "
        f"{figures['kernels']} kernels. Medians of {figures['rounds']} rounds in which the peers take turns, each in a "
        "process of its own; ratios are medians of the rounds' ratios.",
        "",
        "Must and aim are goals that were set beforehand: times a peer's speed, where the column says nothing else.",
        "",
        too_busy(figures),
    ]
    for caption, rows in tables:
        lines += ["", f"## {caption}", "", _line(rows[0]), _line(("---",) * len(rows[0])), *map(_line, rows[1:])]
    return "\n".join(lines) + "\n"


def too_busy(figures: Figures) -> str:
    """Returns a sentence on whether the machine was quiet enough to judge by."""
    reasons = []
    if figures["others_share"] > _OTHERS_MAY_TAKE:
        reasons.append(f"others took {figures['others_share']:.0%} of the processors")
    peaks = figures.get("peak_gflops", [])
    if peaks and min(peaks) < (1 - _PEAKS_MAY_DIFFER) * max(peaks):
        reasons.append(f"its peak moved between {min(peaks):.0f} and {max(peaks):.0f} GFLOP/s")
    if reasons:
        return f"**The machine was too busy to judge by these figures: {' and '.join(reasons)}.**"
    return f"The machine was quiet: others took {figures['others_share']:.1%} of the processors."


def _line(cells: Row) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
