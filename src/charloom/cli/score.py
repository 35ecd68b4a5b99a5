"""`charloom score`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from charloom.cli.options import json_option, one_line, set_threads, threads_option
from charloom.settings import UnknownPolicy
from charloom.units import bits_from_nats, finite_or_none, perplexity_from_nats

if TYPE_CHECKING:
    from charloom.model import TextModel
    from charloom.text import Corpus


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--adapt",
    is_flag=True,
    help="Score once more while the model keeps learning from what it has read (dynamic evaluation): a figure apart.",
)
@click.option(
    "--unknown",
    type=click.Choice(get_args(UnknownPolicy)),
    default="error",
    show_default=True,
    help="What becomes of characters that the model does not know; those left out are not scored.",
)
@threads_option
@json_option
def score(
    model: Path, files: tuple[str, ...], adapt: bool, unknown: UnknownPolicy, threads: int | None, as_json: bool
) -> None:
    """Say what a text costs MODEL, a file that `charloom train` made: bits per character, the fewer the better.

    FILE is a file, a folder, a glob pattern, - for standard input, or a name from `charloom corpora`. The text is read
    in one pass, each character scored from those before it, the first from the state in which a text begins.

    \b
    charloom score book.safetensors another-book.txt
    charloom score book.safetensors chapter.txt --adapt
    """
    set_threads(threads)

    from charloom.data import ordered_pass
    from charloom.inference import score_blocks
    from charloom.model import load
    from charloom.runs import adapted_score
    from charloom.text import find_sources, read_corpus, read_standard_input

    loaded = load(model)
    corpus = read_corpus(find_sources(files, loaded.text, read_standard_input() if "-" in files else None), loaded.text)
    for notice in corpus.notices:
        click.echo(notice, err=True)
    stream = loaded.token_stream(corpus, unknown)
    _tell_unknown(loaded, corpus, unknown)
    nats = score_blocks(loaded.network, ordered_pass(stream)).nats_per_char
    figures = {
        "characters": len(stream),
        "nats_per_char": finite_or_none(nats),
        "bits_per_char": finite_or_none(bits_from_nats(nats)),
        "perplexity_per_char": finite_or_none(perplexity_from_nats(nats)),
    }
    adapted = adapted_score(loaded, stream).nats_per_char if adapt else None
    if adapted is not None:
        figures["adapted_nats_per_char"] = finite_or_none(adapted)
        figures["adapted_bits_per_char"] = finite_or_none(bits_from_nats(adapted))
    if as_json:
        click.echo(json.dumps(figures))
        return
    click.echo(
        f"{one_line(corpus.name)}: {bits_from_nats(nats):.3f} bits ({nats:.4f} nats) per character on {len(stream):,} "
        f"characters, perplexity {perplexity_from_nats(nats):.4g}"
    )
    if adapted is not None:
        click.echo(f"while it keeps learning: {bits_from_nats(adapted):.3f} bits ({adapted:.4f} nats) per character")


def _tell_unknown(model: "TextModel", corpus: "Corpus", unknown: UnknownPolicy) -> None:
    from charloom.text import describe_characters

    texts = [document for document in corpus.documents if isinstance(document, str)]
    unknowns = [character for text in texts for character in model.vocabulary.unknown_characters(text)]
    # A delimiter of records is no character that is scored.
    if model.text.delimiter is not None:
        unknowns = [character for character in unknowns if character not in model.text.delimiter]
    if unknowns:
        done = "left out" if unknown == "skip" else f"scored as {model.vocabulary.replacement!r}"
        click.echo(
            f"{len(unknowns):,} characters {done}, as the model does not know them: {describe_characters(unknowns)}",
            err=True,
        )
