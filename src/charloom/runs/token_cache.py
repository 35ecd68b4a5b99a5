"""Texts larger than memory: encoded once, into a folder, and read from there by memory maps.

A folder of the cache has one text read with some settings: `tokens.bin`, its ids in the smallest integer type, and
`text.json`, what else is known of it, which is written last. Its name tells which files it was made of, as they were.
"""

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from charloom.artifacts import alone_in, make_folder, replacing, write_bytes
from charloom.data import TokenStream
from charloom.errors import InUseError, OutputError
from charloom.runs.fit import split_validation
from charloom.runs.parts import Parts, vocabulary_of
from charloom.settings import TextSettings, TrainingSettings
from charloom.text import CharacterCounts, Sources, Vocabulary, text_pieces, uncompressed_name
from charloom.training import Encoding, Event, Notice

LARGE = 100_000_000
"""Bytes on disk from which on a text is not held in memory."""
_FORMAT = 1
_BETWEEN_EVENTS = 10_000_000
_TOKENS_FILE, _TEXT_FILE = "tokens.bin", "text.json"
_ENTRY = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True)
class EncodedCorpus:
    """A text whose ids lie on disk.

    Attributes:
        name: the sources' base names.
        sha256: as of `Corpus`.
        vocabulary: of the text.
        stream: the ids, memory-mapped.
        notices: a line for each thing that a user would want to know.
    """

    name: str
    sha256: str
    vocabulary: Vocabulary
    stream: TokenStream
    notices: tuple[str, ...]

    @property
    def facts(self) -> dict[str, str | int]:
        """What tells this corpus from another, as JSON values."""
        return {"name": self.name, "sha256": self.sha256, "characters": len(self.stream)}

    def parted(self, training: TrainingSettings) -> Parts:
        """Returns the text in two parts: its tail is held out.

        Raises:
            TooShortError: a part would be too small.
        """
        train, validation, notices = split_validation(self.stream, training.validation)
        return Parts(self.vocabulary, train, validation, (*self.notices, *notices))


def default_cache() -> Path:
    """Returns the folder that encoded texts are kept in."""
    from platformdirs import user_cache_path

    return user_cache_path("charloom") / "texts"


def encoded_corpus(
    sources: Sources, settings: TextSettings, cache: Path | None = None
) -> Generator[Event, None, EncodedCorpus]:
    """Returns the text of `sources`, encoded now into `cache`, or before and not changed since.

    Another process that encodes the same is waited for.

    Raises:
        SourceError: a source cannot be read, is binary, or in another encoding.
        OutputError: the folder cannot be written.
    """
    cache = cache or default_cache()
    folder = cache / _key(sources, settings)
    make_folder(folder)
    with suppress(OSError):
        os.chmod(folder, 0o700)  # the text may be nobody else's business
    if _is_in_use(folder):
        yield Encoding(folder, 0, None, is_waiting=True)
    with alone_in(folder, wait=True):
        corpus = _found(sources, folder)
        if corpus is None:
            _tidy(cache)
            yield from _encode(sources, settings, folder)
            corpus = _found(sources, folder)
            assert corpus is not None  # as it was just written
        else:
            yield Notice(f"{sources.name} was encoded before: {folder}")
        return corpus


def _is_in_use(folder: Path) -> bool:
    try:
        with alone_in(folder):
            return False
    except InUseError:
        return True


def _key(sources: Sources, settings: TextSettings) -> str:
    of = [_FORMAT, _stamps(sources), asdict(settings)]
    return hashlib.sha256(json.dumps(of).encode()).hexdigest()[:32]


def _stamps(sources: Sources) -> list[list[Any]]:
    return [
        [file.path, *file.stamp] if file.stamp is not None else [None, hashlib.sha256(file.held or b"").hexdigest()]
        for file in sources.files
    ]


def _found(sources: Sources, folder: Path) -> EncodedCorpus | None:
    """Returns what `folder` holds; None where that is not whole."""
    try:
        text = json.loads((folder / _TEXT_FILE).read_text("utf-8"))
        vocabulary = Vocabulary(**text["vocabulary"])
        path = folder / _TOKENS_FILE
        if path.stat().st_size != text["characters"] * vocabulary.token_dtype.itemsize:
            return None
        token_ids = np.memmap(path, vocabulary.token_dtype, mode="r").view(np.ndarray)
        return EncodedCorpus(
            sources.name,
            text["sha256"],
            vocabulary,
            TokenStream(token_ids, np.array(text["starts"], np.int64)),
            tuple(text["notices"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _encode(sources: Sources, settings: TextSettings, folder: Path) -> Generator[Event, None, None]:
    begin = time.monotonic()
    reader = _Reader(sources, settings, folder)
    sha256 = hashlib.sha256()
    counts = CharacterCounts(exact=settings.min_count > 1)
    starts, characters, document = [], 0, -1
    for index, piece in reader.pieces(sha256):
        if index != document and piece:
            starts.append(characters)
            document = index
        if isinstance(piece, str):
            counts.add(piece)
        characters += len(piece)
        yield from reader.progress()
    if not characters:
        raise sources.empty()
    vocabulary, notices = vocabulary_of(counts, settings)
    reader.of = 2 * reader.read
    with replacing(folder / _TOKENS_FILE) as file:
        for _, piece in reader.pieces():
            file.write(vocabulary.encode(piece, "replace").tobytes())  # what --min-count folds is replaced
            yield from reader.progress()
    text = {
        "files": _stamps(sources),
        "vocabulary": asdict(vocabulary),
        "characters": characters,
        "starts": starts,
        "sha256": sha256.hexdigest(),
        "notices": notices,
    }
    write_bytes(folder / _TEXT_FILE, json.dumps(text).encode())
    megabytes, seconds = reader.read / 2e6, time.monotonic() - begin
    yield Notice(f"{sources.name}: encoded at {megabytes / seconds:,.0f} MB a second, to be read from {folder}")


class _Reader:
    """Reads all of a text's pieces, and counts the bytes."""

    def __init__(self, sources: Sources, settings: TextSettings, folder: Path):
        self._sources = sources
        self._settings = settings
        self._folder = folder
        self.read = 0
        self._told = 0
        packed = any(uncompressed_name(file.name) != file.name for file in sources.files)
        self.of = None if packed else 2 * sources.bytes_on_disk

    def progress(self) -> Iterator[Encoding]:
        if self.read - self._told >= _BETWEEN_EVENTS or self._told == 0:
            self._told = self.read
            yield Encoding(self._folder, self.read, self.of)

    def pieces(self, sha256: Any = None) -> Iterator[tuple[int, str | bytes]]:
        """Yields each piece with the number of its file; all bytes go through `sha256`."""
        for index, file in enumerate(self._sources.files):
            for piece in text_pieces(self._counted(file.chunks(), sha256), file.name, self._settings):
                yield index, piece

    def _counted(self, chunks: Iterator[bytes], sha256: Any) -> Iterator[bytes]:
        for chunk in chunks:
            self.read += len(chunk)
            if sha256 is not None:
                sha256.update(chunk)
            yield chunk


def _tidy(cache: Path) -> None:
    """Removes what nothing will read any more: texts of files that have changed, and what a killed process left."""
    for entry in cache.iterdir():
        if not _ENTRY.fullmatch(entry.name):
            continue
        with suppress(OSError, OutputError), alone_in(entry):
            for left in entry.glob(".*.tmp"):
                left.unlink()
            if _has_changed(entry):
                shutil.rmtree(entry)


def _has_changed(entry: Path) -> bool:
    try:
        files = json.loads((entry / _TEXT_FILE).read_text("utf-8"))["files"]
        # A file that is not there may be on a disk that is not there now.
        return any(path and os.path.exists(path) and _stamp(path) != stamp for path, *stamp in files)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _stamp(path: str) -> list[int]:
    found = os.stat(path)
    return [found.st_size, found.st_mtime_ns]
