"""`python -m benchmarks.quality.trial SECONDS [SETTING=VALUE...]`: one training of so many seconds, as a line of data.

A setting is one of `charloom.train`'s (hidden, layers, embedding, lanes, unroll, dropout, learning_rate, seed), or
`text`: shakespeare (tiny Shakespeare's first 1,003,854 characters; the last 111,540 are for a final table, and not
looked at here), nietzsche or reference. The text's last tenth is held out, and the best score on it is the result.

The speed is measured first, so that the learning rate is at zero when the seconds of training are over; compilation
and validation are not in them. Lines are appended to trials.jsonl beside this file.
"""

import json
import sys
import tempfile
import time
from dataclasses import fields
from datetime import date
from pathlib import Path
from typing import Any

import charloom
from charloom.machine import processor_name
from charloom.runs import RunSettings, run_training
from charloom.settings import NetworkSettings, TextSettings, TrainingSettings
from charloom.text import read_catalog_corpus
from charloom.training import Evaluation, Event, Progress, Stopped

TRIALS = Path(__file__).with_name("trials.jsonl")
TEXTS = {"shakespeare": "tinyshakespeare", "nietzsche": "nietzsche", "reference": "python-reference"}
TUNED_ON = {"shakespeare": 1_003_854}
"""Characters from the beginning that trials may see."""
_SPEED_SECONDS = 6.0
_NETWORK = {field.name for field in fields(NetworkSettings)}
_NAMES = {"unroll": "unroll_length"}


def main() -> None:
    """Runs the trial that the command line describes."""
    seconds = float(sys.argv[1])
    asked = dict(argument.split("=") for argument in sys.argv[2:])
    name = asked.pop("text", "shakespeare")
    settings = {key: float(value) if "." in value else int(value) for key, value in asked.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.txt"
        document = str(read_catalog_corpus(TEXTS[name], TextSettings()).documents[0])
        path.write_text(document[: TUNED_ON.get(name, len(document))])
        line = trial(path, seconds, settings)
    line = {"text": name, "seconds": seconds, **settings, **line}
    line |= {"processor": processor_name(), "date": date.today().isoformat(), "version": charloom.__version__}
    with TRIALS.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line))


def trial(path: Path, seconds: float, settings: dict[str, Any]) -> dict[str, Any]:
    """Returns what training for so many seconds comes to, as JSON values."""
    speed = characters_a_second(path, settings)
    updates = max(1, round(seconds * speed / (settings.get("lanes", 16) * settings.get("unroll", 64))))
    evaluations: list[Evaluation] = []
    stopped: list[Stopped] = []

    def on_event(event: Event) -> None:
        if isinstance(event, Evaluation):
            evaluations.append(event)
        elif isinstance(event, Stopped):
            stopped.append(event)

    begin = time.perf_counter()
    model = charloom.train(path, updates=updates, on_event=on_event, **settings)
    return {
        "updates": updates,
        "epochs": round(stopped[0].epoch, 2),
        "parameters": model.network.parameters,
        "whole_seconds": round(time.perf_counter() - begin, 1),
        "chars_per_second": round(stopped[0].chars_per_second),
        "train_nats": round(evaluations[-1].train_nats_per_char, 4),
        "last_nats": round(evaluations[-1].validation_nats_per_char, 4),
        "nats": round(float(model.training["validation_nats_per_char"]), 4),
    }


def characters_a_second(path: Path, settings: dict[str, Any]) -> float:
    """Returns the speed of a short training."""
    begin, speed = time.perf_counter(), 0.0

    network = NetworkSettings(**{name: value for name, value in settings.items() if name in _NETWORK})
    training = {_NAMES.get(name, name): value for name, value in settings.items() if name not in _NETWORK}
    run = RunSettings(sources=(path,), network=network, training=TrainingSettings(updates=100_000, **training))
    for event in run_training(run):
        if isinstance(event, Progress):
            speed = event.chars_per_second
            if time.perf_counter() - begin > _SPEED_SECONDS:
                break
    return speed


if __name__ == "__main__":
    main()
