"""Texts larger than memory: encoded once, into a folder, and read from there by memory maps.

A folder of the cache has one text read with some settings: `tokens.bin`, its ids in the smallest integer type, and
`text.json`, what else is known of it, which is written last. Its name tells which files it was made of, as they were.
"""

import hashlib
import json
import os
import re
import time
import zlib
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from jaxtyping import Integer
from msgspec import Meta, Struct

from charloom.artifacts import (
    LOCK_FILE,
    atomic_write,
    convert_json,
    is_unfinished,
    lock_folder,
    make_folder,
    read_regular_file,
    remove_unfinished,
    write_bytes,
)
from charloom.data import TokenStream
from charloom.errors import InUseError, ModelFileError, OutputError
from charloom.runs.dataset_split import DatasetSplit, vocabulary_of
from charloom.runs.run_file import Sha256
from charloom.runs.splits import split_validation
from charloom.settings import TextSettings, TrainingSettings
from charloom.text import CharacterCounts, Sources, Vocabulary, changed, stamp_of, text_pieces
from charloom.training import Encoding, Event, Notice

LARGE = 100_000_000
"""Bytes of files from which on a text is not held in memory."""
_FORMAT = 2
_BETWEEN_EVENTS = 10_000_000
_UNFINISHED_SECONDS = 3_600
_CHECKED_TOGETHER = 1 << 22
_UNUSED_SECONDS = 30 * 24 * 3_600
_TOKENS_FILE, _TEXT_FILE = "tokens.bin", "text.json"
_ENTRY = re.compile("[0-9a-f]{32}")
_OWNER = "text"


class _Text(Struct, forbid_unknown_fields=True, frozen=True):
    """The content of `text.json`.

    Attributes:
        key: the folder's name.
        files: path, size and time of change of each file; None and a digest of what is not a file.
        tokens: size and time of change of `tokens.bin`.
        crc32: of its bytes.
        vocabulary: of the text.
        starts: where documents begin.
        sha256: of the text.
        notices: for the user.
    """

    key: str
    files: list[Annotated[list[str | int | None], Meta(min_length=2, max_length=3)]]
    tokens: list[int]
    crc32: int
    vocabulary: Vocabulary
    starts: Annotated[list[Annotated[int, Meta(ge=0, le=2**53)]], Meta(min_length=1)]
    sha256: Sha256
    notices: list[str]


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
    def metadata(self) -> dict[str, str | int]:
        """What tells this corpus from another, as JSON values."""
        return {"name": self.name, "sha256": self.sha256, "characters": len(self.stream)}

    def split(self, training: TrainingSettings) -> DatasetSplit:
        """Returns the text in two parts: its tail is held out.

        Raises:
            TooShortError: a part would be too small.
        """
        train, validation, notices = split_validation(self.stream, training.validation)
        return DatasetSplit(self.vocabulary, train, validation, (*self.notices, *notices))


def default_cache() -> Path:
    """Returns the folder that encoded texts are kept in."""
    from platformdirs import user_cache_path

    return user_cache_path("charloom") / "texts"


def encoded_corpus(
    sources: Sources, settings: TextSettings, cache: Path | None = None
) -> Generator[Event, None, EncodedCorpus]:
    """Returns the text of `sources`, encoded now into `cache`, or before and not changed since.

    Waits for another process that encodes the same.

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
    while True:
        make_folder(folder)
        with suppress(OSError):
            os.chmod(folder, 0o700)  # the text may be nobody else's business
        if _is_in_use(folder):
            yield Encoding(folder, 0, None, is_waiting=True)
        with lock_folder(folder, wait=True):
            if not folder.exists():  # another process removed it while it was waited for
                continue
            remove_unfinished(folder, _OWNER)
            if (corpus := _found(sources, folder)) is not None:
                with suppress(OSError):
                    os.utime(folder / _TEXT_FILE)  # it was used
                yield Notice(f"{sources.name} was encoded before: {folder}")
                return corpus
            if (folder / _TEXT_FILE).exists():
                yield Notice(f"{sources.name}: what was encoded before is damaged, and is encoded again: {folder}")
            _tidy(cache)
            yield from _encode(sources, settings, folder)
            if (corpus := _found(sources, folder)) is None:
                raise OutputError(f"{folder} is not as it was written. Give another place.")
            return corpus


def _is_in_use(folder: Path) -> bool:
    try:
        with lock_folder(folder):
            return False
    except InUseError:
        return True


def _key(sources: Sources, settings: TextSettings) -> str:
    of = [_FORMAT, _stamps(sources), asdict(settings)]
    return hashlib.sha256(json.dumps(of).encode()).hexdigest()[:32]


def _stamps(sources: Sources) -> list[list[Any]]:
    return [
        [file.path, *file.stamp] if file.stamp is not None else [None, hashlib.sha256(file.content or b"").hexdigest()]
        for file in sources.files
    ]


def _found(sources: Sources, folder: Path) -> EncodedCorpus | None:
    """Returns what `folder` holds; None unless that is whole, and what was written for these sources."""
    text = _read_text(folder)
    path = folder / _TOKENS_FILE
    if text is None or text.tokens != _stamp(path) or text.files != _stamps(sources):
        return None
    try:
        token_ids = np.memmap(path, text.vocabulary.token_dtype, mode="r").view(np.ndarray)
    except (OSError, ValueError):
        return None
    starts = np.array(text.starts, np.int64)
    if not (starts[0] == 0 and (np.diff(starts) > 0).all() and starts[-1] < len(token_ids)):
        return None
    # A file may be damaged and its times be as they were. 2 GB take a second to check, and 17 to encode again.
    crc32, highest = _checked(token_ids)
    if crc32 != text.crc32 or highest >= text.vocabulary.size:
        return None
    stream = TokenStream(token_ids, starts, text.vocabulary.size)
    return EncodedCorpus(sources.name, text.sha256, text.vocabulary, stream, tuple(text.notices))


def _checked(token_ids: Integer[np.ndarray, " tokens"]) -> tuple[int, int]:
    """Returns the CRC-32 of all ids, and the highest."""
    crc32, highest = 0, 0
    for start in range(0, len(token_ids), _CHECKED_TOGETHER):
        part = token_ids[start : start + _CHECKED_TOGETHER]
        crc32, highest = zlib.crc32(part.data, crc32), max(highest, int(part.max()))
    return crc32, highest


def _write_text(folder: Path, text: _Text) -> None:
    body = json.dumps(msgspec.to_builtins(text)).encode()
    write_bytes(folder / _TEXT_FILE, hashlib.sha256(body).hexdigest().encode() + b"\n" + body, _OWNER)


def _read_text(folder: Path) -> _Text | None:
    """Returns what `_write_text` wrote into this folder, to the last bit; None if that is not there."""
    path = folder / _TEXT_FILE
    try:
        digest, _, body = read_regular_file(path).partition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() != digest:
            return None
        # Not by `parse_json`: names of files may be bytes that are not UTF-8, and millions of files take megabytes.
        text = convert_json(json.loads(body), _Text, str(path))
    except (OSError, ValueError, RecursionError, ModelFileError):
        return None
    return text if text.key == folder.name else None


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
        yield from reader.counts()
    if not characters:
        raise sources.empty()
    vocabulary, notices = vocabulary_of(counts, settings)
    reader.of = 2 * reader.read
    again, crc32 = hashlib.sha256(), 0
    with atomic_write(folder / _TOKENS_FILE, _OWNER) as file:
        for _, piece in reader.pieces(again):
            token_ids = vocabulary.encode(piece, "replace").tobytes()  # what --min-count folds is replaced
            crc32 = zlib.crc32(token_ids, crc32)
            file.write(token_ids)
            yield from reader.counts()
        if again.digest() != sha256.digest():
            raise changed(sources.name)
    text = _Text(
        key=folder.name,
        files=_stamps(sources),
        tokens=_stamp(folder / _TOKENS_FILE) or [],
        crc32=crc32,
        vocabulary=vocabulary,
        starts=starts,
        sha256=sha256.hexdigest(),
        notices=notices,
    )
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

    def counts(self) -> Iterator[Encoding]:
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
    for entry in list(cache.iterdir()):
        with suppress(OSError, OutputError):  # another process may be tidying, too
            if _ENTRY.fullmatch(entry.name) and _is_ours(entry):
                _tidy_entry(entry)


def _tidy_entry(entry: Path) -> None:
    with lock_folder(entry):
        remove_unfinished(entry, _OWNER)
        if _is_spent(entry):
            for name in (_TEXT_FILE, _TOKENS_FILE, LOCK_FILE):
                (entry / name).unlink(missing_ok=True)
            entry.rmdir()  # unless somebody else has put something there


def _is_ours(entry: Path) -> bool:
    """Whether a folder has nothing that this module does not write."""
    names = [path.name for path in entry.iterdir()] if entry.is_dir() and not entry.is_symlink() else ["another's"]
    return all(name in (_TEXT_FILE, _TOKENS_FILE, LOCK_FILE) or is_unfinished(name, _OWNER) for name in names)


def _is_spent(entry: Path) -> bool:
    text = _read_text(entry)
    if text is None:  # somebody may be about to begin
        return time.time() - entry.stat().st_mtime > _UNFINISHED_SECONDS
    if time.time() - (entry / _TEXT_FILE).stat().st_mtime > _UNUSED_SECONDS:
        return True
    # A file that is not there may be on a disk that is not there now.
    return any(
        isinstance(path, str) and os.path.exists(path) and _stamp(Path(path)) != stamp for path, *stamp in text.files
    )


def _stamp(path: Path) -> list[int] | None:
    try:
        return [*stamp_of(path.stat())]
    except OSError:
        return None
