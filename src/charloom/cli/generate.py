"""`charloom generate`."""

import json
import secrets
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from charloom.cli.options import (
    FilePath,
    encoding_or_default,
    json_option,
    require_encoding,
    set_threads,
    threads_option,
)
from charloom.cli.streams import flush_results, print_line, print_message, print_text
from charloom.errors import CharloomError
from charloom.settings import SamplingSettings, UnknownPolicy, WeightsPrecision, require_count, require_seed

if TYPE_CHECKING:
    from charloom.inference import TextStream
    from charloom.model import TextModel
    from charloom.prompted_model import PromptedModel
    from charloom.unique_samples import KnownText, Tally

# Several records are printed whole, in writes that hold only whole records, so that Ctrl-C leaves no part of one.
# Python splits writes of more than 8,192 bytes; a character has up to 4, or 6 in JSON.
_WRITTEN_AT_ONCE = 1_000
_MAX_JSON_EXTRA = 80


@click.command()
@click.argument("model", type=FilePath())
@click.option("--prompt", default="", help="Text to continue.  [default: none]")
@click.option("--length", type=int, default=400, show_default=True, help="Number of new characters.")
@click.option(
    "--temperature",
    type=float,
    default=SamplingSettings.temperature,
    show_default=True,
    help="Sampling temperature: below 1 is safer, above 1 bolder, 0 greedy.",
)
@click.option("--top-k", type=int, metavar="K", help="Sample only from the K most likely characters.")
@click.option("--top-p", type=float, metavar="P", help="Sample from the fewest characters that reach probability P.")
@click.option("--seed", type=int, help="Random seed of the sampler.  [default: a random one, printed]")
@click.option("--count", type=int, default=1, show_default=True, help="Number of texts.")
@click.option("--unique", is_flag=True, help="Leave out duplicates.")
@click.option(
    "--novel",
    type=FilePath(),
    metavar="TEXT",
    help="Leave out texts that occur in TEXT, usually the training text.",
)
@click.option("--encoding", metavar="NAME", help="Encoding of the --novel text.  [default: utf-8]")
@click.option("--stop", metavar="TEXT", help="Stop generating before this text.")
@click.option(
    "--window",
    type=int,
    metavar="N",
    help="Read only the last N characters for each new one.  [default: as the model was trained]",
)
@click.option(
    "--unknown",
    type=click.Choice(get_args(UnknownPolicy)),
    default="error",
    show_default=True,
    help="What to do with characters of the prompt that the model does not know.",
)
@click.option(
    "--weights",
    type=click.Choice(get_args(WeightsPrecision)),
    default="float32",
    show_default=True,
    help="Precision of the packed weights: int8 is fastest, and gives the same text on all processors.",
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
    unique: bool,
    novel: Path | None,
    encoding: str | None,
    stop: str | None,
    window: int | None,
    unknown: UnknownPolicy,
    weights: WeightsPrecision,
    threads: int | None,
    as_json: bool,
) -> None:
    """Generate text with a model.

    charloom prints the prompt and the new characters. It separates several texts by an empty line, and prints records
    one per line.

    \b
    charloom generate book.safetensors --prompt "for thos" --length 400
    charloom generate book.safetensors --temperature 0.5 --count 3 --seed 7
    charloom generate names.safetensors --count 1000 --unique --novel names.txt
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

    require_encoding(encoding)
    if encoding is not None and novel is None:
        raise click.UsageError("--encoding applies to the --novel text: give --novel as well.")
    set_threads(threads)

    from charloom.model import load
    from charloom.text import describe_characters

    loaded = load(model)
    prompted = loaded.prompted(prompt, unknown, window, weights)
    unknowns = loaded.unknown_characters(prompt)
    if unknowns:
        action = "left out" if unknown == "skip" else f"replaced with {loaded.vocabulary.replacement!r}"
        print_message(f"{action}, because the model does not know it: {describe_characters(unknowns)}")
    known = None if novel is None else _known_text(loaded, novel, encoding)
    if seed is None:
        seed = secrets.randbelow(2**32)
        print_message(f"seed {seed}")
    sampled = partial(_sample_unique, unique=unique, known=known) if unique or known is not None else _sample
    samples = sampled(prompted, count, length, settings, seed, stop)
    if count > 1 and loaded.text.delimiter is not None:
        samples = _whole(samples, len(prompted.prompt))
    for index, (pieces, stream) in enumerate(samples):
        _print_sample(loaded, prompted.prompt, seed, as_json, index, pieces, stream)


def _whole(
    samples: Iterable[tuple[Iterable[str], "TextStream"]], prompt_length: int
) -> Iterator[tuple[list[str], "TextStream"]]:
    """Yields texts in one piece, and flushes what was printed often enough that no write splits a record."""
    room = _WRITTEN_AT_ONCE
    for pieces, stream in samples:
        text = "".join(pieces)
        room -= prompt_length + len(text) + _MAX_JSON_EXTRA
        if room < 0:
            flush_results()
            room = _WRITTEN_AT_ONCE
        yield [text], stream


def _sample(
    prompted: "PromptedModel", count: int, length: int, settings: SamplingSettings, seed: int, stop: str | None
) -> Iterator[tuple[Iterable[str], "TextStream"]]:
    """Yields each text's pieces, as they are generated, and its stream."""
    streams = prompted.stream_many(
        length, settings, seed=seed, stream_indexes=range(count), stop=stop, before_generating=flush_results
    )
    for stream in streams:
        yield stream, stream


def _sample_unique(
    prompted: "PromptedModel",
    count: int,
    length: int,
    settings: SamplingSettings,
    seed: int,
    stop: str | None,
    *,
    unique: bool,
    known: "KnownText | None",
) -> Iterator[tuple[Iterable[str], "TextStream"]]:
    """Yields each text that is kept, and its stream; then prints how many were tried and dropped.

    Raises:
        CharloomError: fewer than `count` were found.
    """
    from charloom.unique_samples import Tally, unique_samples

    tally = Tally()
    samples = unique_samples(
        *(prompted, count, length, settings, tally),
        seed=seed,
        stop=stop,
        unique=unique,
        known=known,
        before_generating=flush_results,
    )
    for text, stream in samples:
        yield [text], stream
    flush_results()
    print_message(_tally_line(tally, unique, known is not None))
    if tally.found < count:
        raise CharloomError(
            f"found {tally.found:,} of {count:,} texts: thousands of tries in a row gave nothing new. "
            "Raise --temperature, or ask for fewer texts."
        )


def _print_sample(
    model: "TextModel", prompt: str, seed: int, as_json: bool, index: int, pieces: Iterable[str], stream: "TextStream"
) -> None:
    """Prints a text while it is generated; a text in one piece with a single call, which a signal cannot interrupt.

    `flush_results` is called before each block.
    """
    if as_json:
        text = "".join(pieces)
        print_line(json.dumps({"prompt": prompt, "text": text, "seed": seed, "stopped": stream.stopped}), flush=False)
        return
    separator = "\n" if index > 0 and model.text.record_end != "\n" else ""
    if isinstance(pieces, list):
        print_text(f"{separator}{prompt}{''.join(pieces)}\n")
        return
    print_text(separator + prompt)
    for piece in pieces:
        print_text(piece)
    print_text("\n")


def _known_text(model: "TextModel", novel: Path, encoding: str | None) -> "KnownText":
    """Returns the text that samples must not occur in. Prints a note if it is not the training text."""
    from charloom.text import read_corpus
    from charloom.unique_samples import KnownText

    settings = model.text.in_encoding(encoding_or_default(encoding, [model.text.encoding]))
    corpus = read_corpus([novel], settings)
    for notice in corpus.notices:
        print_message(notice)
    if model.trained_on.get("sha256") != corpus.sha256:
        trained_on = model.trained_on.get("name", "unknown")
        print_message(f"{corpus.name} is not the text that the model was trained on ({trained_on})")
    return KnownText(corpus, model.text)


def _tally_line(tally: "Tally", unique: bool, novel: bool) -> str:
    dropped = [
        (tally.duplicates, "duplicates", unique),
        (tally.copies, "copies", novel),
        (tally.unfinished, "longer than --length", tally.unfinished),
        (tally.empty, "empty", tally.empty),
    ]
    reasons = ", ".join(f"{count:,} as {reason}" for count, reason, is_printed in dropped if is_printed)
    run = f"; longest verbatim run: {tally.longest_run:,} characters" if novel else ""
    return f"kept {tally.found:,} in {tally.tries:,} tries; dropped {reasons}{run}"
