"""`charloom report`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from charloom.cli.options import (
    FilePath,
    SourceName,
    encoding_option,
    encoding_or_default,
    require_encoding,
    set_threads,
    threads_option,
)
from charloom.cli.streams import print_message

if TYPE_CHECKING:
    from charloom.artifacts import Output
    from charloom.model import TextModel
    from charloom.text import Corpus


@click.command()
@click.argument("model", type=FilePath())
@click.argument("text", nargs=-1, type=SourceName(), metavar="[TEXT]")
@click.option(
    "--out",
    type=FilePath(),
    metavar="PAGE",
    help="HTML file to write.  [default: MODEL's name, with .html]",
)
@encoding_option
@threads_option
def report(model: Path, text: tuple[str, ...], out: Path | None, encoding: str | None, threads: int | None) -> None:
    """Write an HTML page about a model.

    The page shows the training text, the learning curves, samples, and how similar the characters are to the model.
    With TEXT (files, folders, - or a name from `charloom corpora`) it also shows which units follow quotes, lines or
    capitals, and how much of the samples is copied from TEXT. The page opens without a network.

    \b
    charloom report book.safetensors
    charloom report book.safetensors book.txt --out book.html
    """
    require_encoding(encoding)
    if encoding is not None and not text:
        raise click.UsageError("--encoding applies to TEXT: give a text as well.")
    set_threads(threads)

    from charloom.artifacts import InputFiles, Output
    from charloom.model import load
    from charloom.reports import PAGE
    from charloom.text import find_sources, read_corpus

    loaded = load(model)
    settings = loaded.text.in_encoding(encoding_or_default(encoding, [loaded.text.encoding])) if text else loaded.text
    sources = find_sources(text, settings) if text else None
    inputs = InputFiles([model, *(sources.paths if sources else ())], standard_input="-" in text)
    page = Output(out or model.with_suffix(".html"), PAGE, inputs, is_default=out is None)
    write_report(loaded, model.name, page, None if sources is None else read_corpus(sources, settings))


def write_report(
    model: "TextModel", name: str, page: "Output", corpus: "Corpus | None", why_not: str = "no text was given"
) -> None:
    """Writes the page, with a section about `corpus`, and prints where it is.

    Args:
        model: the model.
        name: the model's name.
        page: where to write.
        corpus: a text to analyze with the model; None for none.
        why_not: why there is no text.
    """
    from charloom.report import report as page_of

    for notice in () if corpus is None else corpus.notices:
        print_message(notice)
    page.write(page_of(model, name, corpus, why_not).encode("utf-8", "surrogatepass"))
    print_message(f"{page.path}: report written. Open it in a browser")
