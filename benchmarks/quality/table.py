"""`python -m benchmarks.quality.table`: prints the trials in trials.jsonl as Markdown, the best ones first."""

import json
from dataclasses import fields
from itertools import groupby
from typing import Any

from benchmarks.quality.laboratory import Candidate
from benchmarks.quality.trial import TRIALS

_DEFAULTS = Candidate()
_SETTINGS = [field.name for field in fields(Candidate)]


def main() -> None:
    """Prints one table per text and training time."""
    trials = [json.loads(line) for line in TRIALS.read_text().splitlines()]
    trials.sort(key=lambda trial: (trial["text"], trial["seconds"], trial["nats"]["last"]))
    for (text, seconds), group in groupby(trials, key=lambda trial: (trial["text"], trial["seconds"])):
        print(f"\n{text}, {seconds:g} s of training\n")
        columns = ("settings", "passes", "training", "held out", "averaged", "at a temperature")
        print(f"| {' | '.join(columns)} |\n{'| --- ' * len(columns)}|")
        for trial in group:
            nats = trial["nats"]
            averaged = min(value for name, value in nats.items() if name != "last")
            figures = (trial["train_nats"], nats["last"], averaged, min(trial["tempered"].values()))
            print(f"| {summary(trial)} | {trial['epochs']:.1f} | {' | '.join(f'{n:.4f}' for n in figures)} |")


def summary(trial: dict[str, Any]) -> str:
    """Returns the settings of a trial that differ from the defaults, always with the width; the device if not a CPU."""
    changed = [
        name for name in _SETTINGS if name == "hidden" or (name in trial and trial[name] != getattr(_DEFAULTS, name))
    ]
    words = (f"{name.replace('_', ' ')} {trial.get(name, getattr(_DEFAULTS, name))}" for name in changed)
    device = trial.get("device", "cpu")
    return ", ".join([*words, *([] if device == "cpu" else [device])])


if __name__ == "__main__":
    main()
