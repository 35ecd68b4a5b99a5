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
from collections.abc import Generator, Iterator, Mapping
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
from charloom.text import CharacterCounts, Sources, Vocabulary, changed, stamp_of, text_pieces
from charloom.training import Encoding, Event, Notice

LARGE = 100_000_000
"""Bytes of files from which on a text is not held in memory."""
_FORMAT = 1
_BETWEEN_EVENTS = 10_000_000
_UNFINISHED_SECONDS = 3_600
_UNUSED_SECONDS = 30 * 24 * 3_600
_TOKENS_FILE, _TEXT_FILE = "tokens.bin", "text.json"
_ENTRY = re.compile("[0-9a-f]{32}")
_OURS = re.compile(r"tokens\.bin|text\.json|\.lock|\.(tokens\.bin|text\.json)\..*\.tmp")


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
    try:
        return (yield from _found_or_encoded(sources, settings, cache))
    except OutputError as error:
        raise OutputError(f"{error} --cache DIR sets where the encoded text is kept.") from error


def _found_or_encoded(sources: Sources, settings: TextSettings, cache: Path) -> Generator[Event, None, EncodedCorpus]:
    folder = cache / _key(sources, settings)
    make_folder(folder)
    with suppress(OSError):
        os.chmod(folder, 0o700)  # the text may be nobody else's business
    if _is_in_use(folder):
        yield Encoding(folder, 0, None, is_waiting=True)
    with alone_in(folder, wait=True):
        _remove_unfinished(folder)
        if (corpus := _found(sources, folder)) is not None:
            with suppress(OSError):
                os.utime(folder / _TEXT_FILE)  # it was used
            yield Notice(f"{sources.name} was encoded before: {folder}")
            return corpus
        _tidy(cache)
        yield from _encode(sources, settings, folder)
        if (corpus := _found(sources, folder)) is None:
            raise OutputError(f"{folder} is not as it was written. Give another place.")
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
    text = _read_text(folder)
    path = folder / _TOKENS_FILE
    if text is None or text["tokens"] != _stamp(path):
        return None
    vocabulary = Vocabulary(**text["vocabulary"])
    try:
        token_ids = np.memmap(path, vocabulary.token_dtype, mode="r").view(np.ndarray)
    except (OSError, ValueError):
        return None
    starts = np.array(text["starts"], np.int64)
    return EncodedCorpus(
        sources.name, text["sha256"], vocabulary, TokenStream(token_ids, starts), tuple(text["notices"])
    )


def _write_text(folder: Path, text: Mapping[str, Any]) -> None:
    body = json.dumps(text).encode()
    write_bytes(folder / _TEXT_FILE, hashlib.sha256(body).hexdigest().encode() + b"\n" + body)


def _read_text(folder: Path) -> dict[str, Any] | None:
    """Returns what `_write_text` wrote, to the last bit; None where it is not there."""
    try:
        digest, _, body = (folder / _TEXT_FILE).read_bytes().partition(b"\n")
    except OSError:
        return None
    if hashlib.sha256(body).hexdigest().encode() != digest:
        return None
    return dict(json.loads(body))


def _encode(sources: Sources, settings: TextSettings, folder: Path) -> Generator[Event, None, None]:
    begin = time.perf_counter()
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
    again = hashlib.sha256()
    with replacing(folder / _TOKENS_FILE) as file:
        for _, piece in reader.pieces(again):
            file.write(vocabulary.encode(piece, "replace").tobytes())  # what --min-count folds is replaced
            yield from reader.progress()
        if again.digest() != sha256.digest():
            raise changed(sources.name)
    text = {
        "files": _stamps(sources),
        "tokens": _stamp(folder / _TOKENS_FILE),
        "vocabulary": asdict(vocabulary),
        "starts": starts,
        "sha256": sha256.hexdigest(),
        "notices": notices,
    }
    _write_text(folder, text)
    megabytes, seconds = reader.read / 2e6, max(time.perf_counter() - begin, 1e-3)  # clocks may be coarse
    yield Notice(f"{sources.name}: encoded at {megabytes / seconds:,.0f} MB a second, to be read from {folder}")


class _Reader:
    """Reads all of a text's pieces, and counts the bytes."""

    def __init__(self, sources: Sources, settings: TextSettings, folder: Path):
        self._sources = sources
        self._settings = settings
        self._folder = folder
        self.read = 0
        self._told = 0
        self.of = None if sources.size is None else 2 * sources.size

    def progress(self) -> Iterator[Encoding]:
        if self.read - self._told >= _BETWEEN_EVENTS or self._told == 0:
            self._told = self.read
            yield Encoding(self._folder, self.read, self.of)

    def pieces(self, sha256: Any) -> Iterator[tuple[int, str | bytes]]:
        """Yields each piece with the number of its file; all bytes go through `sha256`."""
        for index, file in enumerate(self._sources.files):
            chunks = self._counted(file.chunks(), sha256)
            is_text = self._settings.units == "chars"
            for piece in text_pieces(chunks, file.name, self._settings) if is_text else chunks:
                yield index, piece

    def _counted(self, chunks: Iterator[bytes], sha256: Any) -> Iterator[bytes]:
        for chunk in chunks:
            self.read += len(chunk)
            sha256.update(chunk)
            yield chunk


def _tidy(cache: Path) -> None:
    """Removes texts of files that have changed, that were not used for long, or that were never finished."""
    for entry in cache.iterdir():
        if _ENTRY.fullmatch(entry.name) and _is_ours(entry):
            with suppress(OSError, OutputError), alone_in(entry):
                _remove_unfinished(entry)
                if _is_spent(entry):
                    shutil.rmtree(entry)


def _is_ours(entry: Path) -> bool:
    """Whether a folder has nothing that this module does not write."""
    return entry.is_dir() and all(_OURS.fullmatch(path.name) for path in entry.iterdir())


def _remove_unfinished(entry: Path) -> None:
    """Removes what a killed process left; the entry is locked."""
    for left in entry.glob(".*.tmp"):
        left.unlink(missing_ok=True)


def _is_spent(entry: Path) -> bool:
    text = _read_text(entry)
    if text is None:  # somebody may be about to begin
        return time.time() - entry.stat().st_mtime > _UNFINISHED_SECONDS
    if time.time() - (entry / _TEXT_FILE).stat().st_mtime > _UNUSED_SECONDS:
        return True
    # A file that is not there may be on a disk that is not there now.
    return any(path and os.path.exists(path) and _stamp(Path(path)) != stamp for path, *stamp in text["files"])


def _stamp(path: Path) -> list[int] | None:
    try:
        return [*stamp_of(path.stat())]
    except OSError:
        return None
