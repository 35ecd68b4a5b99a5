"""Command lines with absurd values, for every option of every command."""

import random
import shutil
from pathlib import Path

import click

from charloom.cli.run import charloom
from tests.fuzz.runner import Tally, Worker
from tests.fuzz.values import ABSURD_WORDS

_SMALL = ["--hidden", "8", "--embedding", "4", "--batch-size", "2", "--sequence-length", "8", "--steps", "2"]
_PLAIN = {
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
"""Options that would change the process which runs the cases after it."""


def fuzz_command_lines(samples: Path, scratch: Path, choose: random.Random, until: float, most: int) -> Tally:
    """Runs command lines of which one to three words are absurd."""
    tally, worker = Tally("command lines"), Worker()
    for name in ("book.txt", "chars.safetensors", "bytes.safetensors", "records.safetensors"):
        shutil.copy(samples / name, scratch / name)
    while tally.goes_on(until, most):
        arguments = absurd_arguments(choose)
        stdin = choose.choice(("", "the quick", "\xff\xfe\0", "\n" * 50))
        ended = worker.run(arguments, scratch, stdin, seconds=1.5 if "serve" in arguments else 4.0)
        tally.judge(f"attempt {tally.cases}", arguments, ended)
    worker.close()
    return tally


def absurd_arguments(choose: random.Random) -> list[str]:
    """Returns the words of one command line."""
    command = choose.choice(list(_PLAIN))
    arguments = list(_PLAIN[command])
    options = [
        option
        for option in charloom.commands[command].params
        if isinstance(option, click.Option) and option.name not in _HELD_OUT
    ]
    for _ in range(choose.choice((1, 1, 2, 3))):
        way = choose.random()
        if way < 0.75 and options:
            option = choose.choice(options)
            arguments.insert(1, option.opts[0]) if option.is_flag else arguments.extend(
                [option.opts[0], choose.choice(ABSURD_WORDS)]
            )
        elif way < 0.9:
            arguments[choose.randrange(len(arguments))] = choose.choice(ABSURD_WORDS)
        else:
            arguments.insert(choose.randrange(len(arguments) + 1), choose.choice(ABSURD_WORDS))
    return arguments
