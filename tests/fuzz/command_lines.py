"""Command lines with absurd values, for every option of every command."""

import random
import shutil
from pathlib import Path

import click

from charloom.cli.run import charloom
from tests.fuzz.runner import Tally, Worker
from tests.fuzz.values import ABSURD_ARGUMENTS

_SMALL = ["--hidden", "8", "--embedding", "4", "--batch-size", "2", "--sequence-length", "8", "--steps", "2"]
_VALID = {
    "train": ["train", "book.txt", "--out", "new.safetensors", *_SMALL],
    "generate": ["generate", "chars.safetensors", "--length", "10"],
    "score": ["score", "chars.safetensors", "book.txt"],
    "classify": ["classify", "chars.safetensors", "bytes.safetensors", "--text", "book.txt"],
    "report": ["report", "chars.safetensors", "--out", "page.html"],
    "show": ["show", "chars.safetensors"],
    "corpora": ["corpora"],
    "reproduce": ["reproduce", "alphabet/one_to_one", "--quick", "--out", "done"],
    "serve": ["serve", "chars.safetensors", "--port", "0"],
}
_HELD_OUT = ("threads",)
"""Options that would affect later cases in the same process."""


def fuzz_command_lines(samples: Path, scratch: Path, rng: random.Random, until: float, max_cases: int) -> Tally:
    """Runs command lines with one to three absurd arguments."""
    tally, worker = Tally("command lines"), Worker()
    for name in ("book.txt", "chars.safetensors", "bytes.safetensors", "records.safetensors"):
        shutil.copy(samples / name, scratch / name)
    while tally.has_next(until, max_cases):
        arguments = absurd_arguments(rng)
        stdin = rng.choice(("", "the quick", "\xff\xfe\0", "\n" * 50))
        outcome = worker.run(arguments, scratch, stdin, seconds=1.5 if "serve" in arguments else 4.0)
        tally.judge(f"attempt {tally.cases}", arguments, outcome)
    worker.close()
    return tally


def absurd_arguments(rng: random.Random) -> list[str]:
    """Returns the arguments of one command line."""
    command = rng.choice(list(_VALID))
    arguments = list(_VALID[command])
    options = [
        option
        for option in charloom.commands[command].params
        if isinstance(option, click.Option) and option.name not in _HELD_OUT
    ]
    for _ in range(rng.choice((1, 1, 2, 3))):
        way = rng.random()
        if way < 0.75 and options:
            option = rng.choice(options)
            arguments.insert(1, option.opts[0]) if option.is_flag else arguments.extend(
                [option.opts[0], rng.choice(ABSURD_ARGUMENTS)]
            )
        elif way < 0.9:
            arguments[rng.randrange(len(arguments))] = rng.choice(ABSURD_ARGUMENTS)
        else:
            arguments.insert(rng.randrange(len(arguments) + 1), rng.choice(ABSURD_ARGUMENTS))
    return arguments
