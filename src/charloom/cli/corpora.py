"""`charloom corpora`."""

import json
from typing import Any

import click

from charloom.cli.options import json_option
from charloom.cli.streams import print_line
from charloom.errors import SourceError
from charloom.text import CORPORA, local_copy, read_named_corpus_bytes, unknown_corpus_message


@click.command()
@click.argument("name", required=False)
@json_option
def corpora(name: str | None, as_json: bool) -> None:
    """List the texts that charloom can download by name.

    With NAME, charloom downloads that text once, checks it, and prints where it is. It looks in the folder that
    CHARLOOM_DATA names first.

    \b
    charloom corpora
    charloom corpora nietzsche
    """
    if name is not None:
        if name not in CORPORA:
            raise SourceError(unknown_corpus_message(name))
        read_named_corpus_bytes(name)
    for listed in [name] if name is not None else CORPORA:
        metadata = _metadata(listed)
        if as_json:
            print_line(json.dumps(metadata))
        else:
            where = metadata["path"] or ("comes with Python" if metadata["url"] is None else "not downloaded yet")
            print_line(f"{listed:<18}{metadata['description']}; {where}")


def _metadata(name: str) -> dict[str, Any]:
    entry, path = CORPORA[name], local_copy(name)
    return {
        "name": name,
        "description": entry.description,
        "url": entry.url,
        "sha256": entry.sha256,
        "path": None if path is None else str(path),
    }
