"""A corpus: the documents in the given sources, decoded and normalized."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from charloom.settings import TextSettings
from charloom.text.decoding import text_pieces
from charloom.text.sources import Sources, find_sources, named_corpus_file


@dataclass(frozen=True)
class Corpus:
    """Documents to train on or to score. Each document begins with a new state.

    Attributes:
        name: the base names of the sources.
        documents: each document as characters, or as bytes if the settings say so.
        sha256: the digest of the concatenated bytes of all documents; for a single file, what `sha256sum` prints.
            A compressed file is decompressed first.
        notices: lines about the sources that the user should see.
    """

    name: str
    documents: tuple[str | bytes, ...]
    sha256: str
    notices: tuple[str, ...] = ()

    @property
    def characters(self) -> int:
        """The total number of characters (or bytes)."""
        return sum(map(len, self.documents))

    @property
    def metadata(self) -> dict[str, str | int]:
        """What identifies this corpus, as JSON values."""
        return {"name": self.name, "sha256": self.sha256, "characters": self.characters}


def read_corpus(sources: Sequence[str | os.PathLike[str]] | Sources, settings: TextSettings) -> Corpus:
    """Returns the corpus in `sources`, which may be the result of `find_sources`.

    Raises:
        SourceError: a source is missing, unreadable, empty, binary, or in another encoding.
    """
    found = sources if isinstance(sources, Sources) else find_sources(sources, settings)
    corpus = _read(found, settings)
    if not corpus.documents:
        raise found.empty()
    return corpus


def read_named_corpus(name: str, settings: TextSettings) -> Corpus:
    """Returns the corpus `name`, even if a file in the working folder has the same name.

    Raises:
        SourceError: the corpus is not available.
    """
    return _read(Sources(name, name, (named_corpus_file(name),), ()), settings)


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
