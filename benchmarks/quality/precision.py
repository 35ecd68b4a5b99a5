"""`python -m benchmarks.quality.precision [SEEDS]`: does bfloat16 cost quality per step?

Trains the same network for the same number of steps in float32 and in bfloat16, with five seeds. Both precisions draw
the same initial weights and dropout masks for a seed. The score is the held-out loss in nats per character, always
computed in float32. Results are kept in build/precision.jsonl, so a stopped run continues.
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import charloom

SEEDS = 5
RUNS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("tinyshakespeare", {"hidden": 256, "steps": 3000, "dropout": 0.1, "learning_rate": 0.01, "weight_decay": 0.05}),
    ("nietzsche", {"hidden": 384, "steps": 1500, "dropout": 0.1, "learning_rate": 0.01, "weight_decay": 0.05}),
    (
        "names",
        {"hidden": 192, "steps": 1500, "dropout": 0.2, "learning_rate": 0.01, "records": True, "validation": 1000},
    ),
    ("tinyshakespeare", {"hidden": 128, "layers": 2, "steps": 2000, "cell": "gru", "learning_rate": 0.005}),
)
_RESULTS = Path(__file__).parents[2] / "build" / "precision.jsonl"


def main() -> None:
    """Trains what has not been trained yet, and prints a table."""
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else SEEDS
    _RESULTS.parent.mkdir(exist_ok=True)
    known = {_key(one): one["nats"] for one in map(json.loads, _RESULTS.open())} if _RESULTS.exists() else {}
    print("| text, settings | float32 | bfloat16 | difference of the means | its standard error |")
    print("| --- | --- | --- | --- | --- |")
    for text, settings in RUNS:
        nats: dict[str, list[float]] = {"float32": [], "bfloat16": []}
        for seed in range(seeds):
            for precision, losses in nats.items():
                run = {"text": text, "settings": settings, "seed": seed, "precision": precision}
                if (found := known.get(_key(run))) is None:
                    model = charloom.train(text, **settings, seed=seed, precision=precision)
                    found = float(model.training["validation_nats_per_char"])
                    with _RESULTS.open("a") as file:
                        file.write(json.dumps(run | {"nats": found}) + "\n")
                losses.append(found)
        print(_row(text, settings, nats["float32"], nats["bfloat16"]), flush=True)


def _key(run: dict[str, Any]) -> str:
    return json.dumps([run[name] for name in ("text", "settings", "seed", "precision")], sort_keys=True)


def _row(text: str, settings: dict[str, Any], full: list[float], half: list[float]) -> str:
    cells = (f"{statistics.mean(losses):.4f} ± {statistics.stdev(losses):.4f}" for losses in (full, half))
    pairs = [ours - theirs for ours, theirs in zip(half, full, strict=True)]
    error = statistics.stdev(pairs) / len(pairs) ** 0.5
    shown = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in settings.items())
    return f"| {text}, {shown} | {' | '.join(cells)} | {statistics.mean(pairs):+.4f} | {error:.4f} |"


if __name__ == "__main__":
    main()
