"""`charloom report`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from charloom.cli.options import (
    encoding_option,
    encoding_or_default,
    require_encoding,
    set_threads,
    threads_option,
)

if TYPE_CHECKING:
    from charloom.model import TextModel
    from charloom.text import Corpus


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("text", nargs=-1, metavar="[TEXT]")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PAGE",
    help="The page.  [default: MODEL's name, with .html]",
)
@encoding_option
@threads_option
def report(model: Path, text: tuple[str, ...], out: Path | None, encoding: str | None, threads: int | None) -> None:
    """Write an HTML page about MODEL: what it learnt from, its curves, what it writes, how it sees characters.

    With TEXT (the one that it was trained on, or another; files, folders, - or a name from `charloom corpora`) also
    which of its units follow quotes, lines or capitals, and how much of what it writes is copied. The page opens
    without a network.

    \b
    charloom report book.safetensors
    charloom report book.safetensors book.txt --out book.html
    """
    require_encoding(encoding)
    if encoding is not None and not text:
        raise click.UsageError("--encoding is of TEXT: give a text as well.")
    set_threads(threads)

    from charloom.artifacts import require_writable_page
    from charloom.model import load
    from charloom.text import find_sources, read_corpus

    loaded = load(model)
    page = out or model.with_suffix(".html")
    require_writable_page(page)
    if not text:
        write_report(loaded, model.name, page, None)
        return
    settings = loaded.text.in_encoding(encoding_or_default(encoding, [loaded.text.encoding]))
    write_report(loaded, model.name, page, read_corpus(find_sources(text, settings), settings))


def write_report(
    model: "TextModel", name: str, page: Path, corpus: "Corpus | None", why_not: str = "no text was given"
) -> None:
    """Writes the page, with `corpus` looked into, and says so."""
    from charloom.artifacts import write_bytes
    from charloom.report import report as page_of

    for notice in () if corpus is None else corpus.notices:
        click.echo(notice, err=True)
    write_bytes(page, page_of(model, name, corpus, why_not).encode("utf-8", "surrogatepass"))
    click.echo(f"{page}: a report; open it in a browser", err=True)
