"""A corpus: the documents that the given sources hold, read, decoded and normalized."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass

from charloom.settings import TextSettings
from charloom.text.catalog import read_catalog_bytes
from charloom.text.decoding import text_pieces
from charloom.text.sources import SourceFile, Sources, find_sources


@dataclass(frozen=True)
class Corpus:
    """Documents of text to learn from; each begins anew.

    Attributes:
        name: the sources' base names.
        documents: each document as characters, or as bytes where the settings say so.
        sha256: of all the documents' bytes as they were read, one after another; for a single
            file what `sha256sum` prints. Of a compressed one, what it holds.
        paths: the files that were read, with links resolved.
        notices: a line for each thing about the sources that a user would want to know.
    """

    name: str
    documents: tuple[str | bytes, ...]
    sha256: str
    paths: frozenset[str] = frozenset()
    notices: tuple[str, ...] = ()

    @property
    def characters(self) -> int:
        """How many characters (or bytes) the documents have together."""
        return sum(map(len, self.documents))

    @property
    def facts(self) -> dict[str, str | int]:
        """What tells this corpus from another, as JSON values."""
        return {"name": self.name, "sha256": self.sha256, "characters": self.characters}


def read_corpus(
    sources: Sequence[str | os.PathLike[str]] | Sources, settings: TextSettings, standard_input: bytes | None = None
) -> Corpus:
    """Returns the corpus that `sources` hold together; `standard_input` stands in for what `-` would read.

    Raises:
        SourceError: a source is missing, unreadable, empty, binary, or in another encoding.
    """
    found = sources if isinstance(sources, Sources) else find_sources(sources, settings, standard_input)
    corpus = _read(found, settings)
    if not corpus.documents:
        raise found.empty()
    return corpus


def read_catalog_corpus(name: str, settings: TextSettings) -> Corpus:
    """Returns the text `name` of the catalog, whatever else the working folder has by that name.

    Raises:
        SourceError: it cannot be had.
    """
    file = SourceFile(name, chosen_by_name=True, held=read_catalog_bytes(name))
    return _read(Sources(name, name, (file,), ()), settings)


def _read(sources: Sources, settings: TextSettings) -> Corpus:
    sha256 = hashlib.sha256()
    documents = []
    for file in sources.files:
        data = b"".join(file.chunks())
        sha256.update(data)
        pieces = list(text_pieces([data], file.name, settings))
        document: str | bytes = (b"" if settings.units == "bytes" else "").join(pieces)  # type: ignore[arg-type]
        if document:
            documents.append(document)
    return Corpus(sources.name, tuple(documents), sha256.hexdigest(), sources.paths, sources.notices)
