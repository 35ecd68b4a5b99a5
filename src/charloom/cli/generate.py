"""`charloom generate`."""

import json
import secrets
import sys
from pathlib import Path
from typing import get_args

import click

from charloom.cli.options import json_option, set_threads, threads_option
from charloom.settings import SamplingSettings, UnknownPolicy, require_count, require_seed

# Texts that are written side by side, several times as fast as one after another.
_TOGETHER = 64


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--prompt", default="", help="The text to go on from.  [default: none]")
@click.option("--length", type=int, default=400, show_default=True, help="New characters.")
@click.option(
    "--temperature",
    type=float,
    default=SamplingSettings.temperature,
    show_default=True,
    help="Below 1 safer, above 1 bolder; 0 always takes the most likely character.",
)
@click.option("--top-k", type=int, metavar="K", help="Choose among the K most likely characters only.")
@click.option("--top-p", type=float, metavar="P", help="Choose among the fewest characters that reach probability P.")
@click.option("--seed", type=int, help="Of the choices; the same seed writes the same text.  [default: drawn]")
@click.option("--count", type=int, default=1, show_default=True, help="How many texts.")
@click.option("--stop", metavar="TEXT", help="End a text before the first TEXT.")
@click.option(
    "--window",
    type=int,
    metavar="N",
    help="Read the last N characters anew for each new one.  [default: as the model was trained]",
)
@click.option(
    "--unknown",
    type=click.Choice(get_args(UnknownPolicy)),
    default="error",
    show_default=True,
    help="What becomes of characters of the prompt that the model does not know.",
)
@threads_option
@json_option
def generate(
    model: Path,
    prompt: str,
    length: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seed: int | None,
    count: int,
    stop: str | None,
    window: int | None,
    unknown: UnknownPolicy,
    threads: int | None,
    as_json: bool,
) -> None:
    """Write text with MODEL, a file that `charloom train` made.

    Standard output has the prompt and what follows it; several texts are written in turn, with an empty line
    between them.

    \b
    charloom generate book.safetensors --prompt "for thos" --length 400
    charloom generate book.safetensors --temperature 0.5 --count 3 --seed 7
    """
    settings = SamplingSettings(temperature=temperature, top_k=top_k, top_p=top_p)
    require_count("length", length)
    require_count("count", count)
    if stop == "":
        raise click.UsageError("--stop must not be empty.")
    if window is not None:
        require_count("window", window)
    if seed is not None:
        require_seed(seed)

    set_threads(threads)

    from charloom.model import load
    from charloom.text import describe_characters

    loaded = load(model)
    prepared = loaded.prepare(prompt, unknown, window)
    unknowns = loaded.unknown_characters(prompt)
    if unknowns:
        done = "left out" if unknown == "skip" else f"replaced with {loaded.vocabulary.replacement!r}"
        click.echo(f"{done}, as the model does not know it: {describe_characters(unknowns)}", err=True)
    if seed is None:
        seed = secrets.randbelow(2**32)
        click.echo(f"seed {seed}", err=True)
    for first in range(0, count, _TOGETHER):
        indexes = range(first, min(first + _TOGETHER, count))
        writings = prepared.write_many(length, settings, seed=seed, stream_indexes=indexes, stop=stop)
        for index, writing in zip(indexes, writings, strict=True):
            if as_json:
                text = "".join(writing)
                facts = {"prompt": prepared.prompt, "text": text, "seed": seed, "stopped": writing.stopped}
                click.echo(json.dumps(facts))
                continue
            if index > 0:
                sys.stdout.write("\n")
            sys.stdout.write(prepared.prompt)
            for piece in writing:
                sys.stdout.write(piece)
                sys.stdout.flush()
            sys.stdout.write("\n")
