"""A corpus: the documents that the given sources hold, read, decoded and normalized."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from charloom.settings import TextSettings
from charloom.text.decoding import text_pieces
from charloom.text.sources import Sources, catalog_file, find_sources


@dataclass(frozen=True)
class Corpus:
    """Documents of text to learn from; each starts from zero.

    Attributes:
        name: the sources' base names.
        documents: each document as characters, or as bytes where the settings say so.
        sha256: of all the documents' bytes as they were read, one after another; for a single
            file what `sha256sum` prints. Of a compressed one, what it holds.
        notices: a line for each thing about the sources that a user would want to know.
    """

    name: str
    documents: tuple[str | bytes, ...]
    sha256: str
    notices: tuple[str, ...] = ()

    @property
    def characters(self) -> int:
        """How many characters (or bytes) the documents have together."""
        return sum(map(len, self.documents))

    @property
    def metadata(self) -> dict[str, str | int]:
        """What tells this corpus from another, as JSON values."""
        return {"name": self.name, "sha256": self.sha256, "characters": self.characters}


def read_corpus(sources: Sequence[str | os.PathLike[str]] | Sources, settings: TextSettings) -> Corpus:
    """Returns the corpus that `sources`, perhaps found already, hold together.

    Raises:
        SourceError: a source is missing, unreadable, empty, binary, or in another encoding.
    """
    found = sources if isinstance(sources, Sources) else find_sources(sources, settings)
    corpus = _read(found, settings)
    if not corpus.documents:
        raise found.empty()
    return corpus


def read_catalog_corpus(name: str, settings: TextSettings) -> Corpus:
    """Returns the text `name` of the catalog, whatever else the working folder has by that name.

    Raises:
        SourceError: it cannot be had.
    """
    return _read(Sources(name, name, (catalog_file(name),), ()), settings)


def _read(sources: Sources, settings: TextSettings) -> Corpus:
    sha256 = hashlib.sha256()
    documents: list[str | bytes] = []

    def hashed(chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            sha256.update(chunk)
            yield chunk

    for file in sources.files:
        if settings.units == "bytes":
            documents.append(b"".join(hashed(file.chunks())))
        else:
            documents.append("".join(text_pieces(hashed(file.chunks()), file.name, settings)))
    return Corpus(sources.name, tuple(filter(None, documents)), sha256.hexdigest(), sources.notices)
