"""`python -m tests.fuzz.samples FOLDER`: creates the files that the fuzzer damages, as charloom writes them."""

import itertools
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from charloom.runs import RunSettings, run_training
from charloom.settings import NetworkSettings, TextSettings, TrainingSettings

TEXT = "".join(f"the quick brown fox {number}\njumps over {number} lazy dogs\n" for number in range(100))
_NETWORK = NetworkSettings(hidden=8, embedding=4)
_SCHEDULE = {"batch_size": 2, "sequence_length": 8}


def make_samples(folder: Path) -> None:
    """Creates a text, models of each kind, a run to resume, and an encoded text in `folder`."""
    (folder / "book.txt").write_text(TEXT)
    for name, text in (
        ("chars", TextSettings()),
        ("bytes", TextSettings(units="bytes")),
        ("records", TextSettings(delimiter="\n")),
    ):
        _train(folder, RunSettings(sources=["book.txt"], out=folder / f"{name}.safetensors", text=text))
    stops = itertools.count()
    halfway = RunSettings(sources=["book.txt"], out=folder / "run.safetensors", folder=folder / "run")
    _train(folder, halfway, lambda: next(stops) > 0, steps=30)
    _train(folder, RunSettings(sources=["book.txt"], out=folder / "cached.safetensors", cache=folder / "cache"))


def _train(
    folder: Path, settings: RunSettings, should_stop: Callable[[], bool] = lambda: False, steps: int = 3
) -> None:
    training = TrainingSettings(steps=steps, **_SCHEDULE)
    here = os.getcwd()
    os.chdir(folder)
    try:
        for _ in run_training(replace(settings, network=_NETWORK, training=training), should_stop):
            pass
    finally:
        os.chdir(here)


if __name__ == "__main__":
    make_samples(Path(sys.argv[1]))
