"""Texts larger than memory: encoded once into a folder, and then read from there through memory maps.

Each folder of the cache holds one text, read with certain settings. `tokens.bin` has its token ids, in the smallest
integer type. `text.json` has everything else, and is written last. The folder's name is a digest of the files, their
times and the settings.
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

LARGE_TEXT_BYTES = 100_000_000
"""Texts of at least this many bytes are not kept in memory."""
_FORMAT = 2
_BYTES_BETWEEN_EVENTS = 10_000_000
_UNFINISHED_SECONDS = 3_600
_TOKENS_PER_CHECK = 1 << 22
_UNUSED_SECONDS = 30 * 24 * 3_600
_TOKENS_FILE, _TEXT_FILE = "tokens.bin", "text.json"
_ENTRY = re.compile("[0-9a-f]{32}")
_OWNER = "text"


class _Text(Struct, forbid_unknown_fields=True, frozen=True):
    """The content of `text.json`.

    Attributes:
        key: the folder's name.
        files: path, size and modification time of each file; None and a digest for other sources.
        tokens: size and modification time of `tokens.bin`.
        crc32: the CRC-32 of `tokens.bin`.
        vocabulary: the text's vocabulary.
        starts: where documents start.
        sha256: the SHA-256 of the text.
        notices: lines for the user.
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
    """A text whose token ids are on disk.

    Attributes:
        name: the sources' base names.
        sha256: as in `Corpus`.
        vocabulary: the text's vocabulary.
        stream: the token ids, memory-mapped.
        notices: lines for the user.
    """

    name: str
    sha256: str
    vocabulary: Vocabulary
    stream: TokenStream
    notices: tuple[str, ...]

    @property
    def metadata(self) -> dict[str, str | int]:
        """What identifies this corpus, as JSON values."""
        return {"name": self.name, "sha256": self.sha256, "characters": len(self.stream)}

    def split(self, training: TrainingSettings) -> DatasetSplit:
        """Returns the text in two parts; the end is held out.

        Raises:
            TooShortError: a part would be too small.
        """
        train, validation, notices = split_validation(self.stream, training.validation)
        return DatasetSplit(self.vocabulary, train, validation, (*self.notices, *notices))


def default_cache() -> Path:
    """Returns the default folder for encoded texts."""
    from platformdirs import user_cache_path

    return user_cache_path("charloom") / "texts"


def encoded_corpus(
    sources: Sources, settings: TextSettings, cache: Path | None = None
) -> Generator[Event, None, EncodedCorpus]:
    """Returns the text of `sources` from `cache`, and encodes it first if it is not there or has changed.

    Waits if another process is encoding the same text.

    Raises:
        SourceError: a source cannot be read, is binary, or is in another encoding.
        OutputError: the folder cannot be written.
    """
    cache = cache or default_cache()
    try:
        return (yield from _found_or_encoded(sources, settings, cache))
    except OutputError as error:
        raise OutputError(f"{error} Choose another folder for the encoded text with --cache DIR.") from error


def _found_or_encoded(sources: Sources, settings: TextSettings, cache: Path) -> Generator[Event, None, EncodedCorpus]:
    folder = cache / _key(sources, settings)
    while True:
        make_folder(folder)
        with suppress(OSError):
            os.chmod(folder, 0o700)  # the text may be private
        if _is_in_use(folder):
            yield Encoding(folder, 0, None, is_waiting=True)
        with lock_folder(folder, wait=True):
            if not folder.exists():  # another process removed it while this one waited
                continue
            remove_unfinished(folder, _OWNER)
            if (corpus := _found(sources, folder)) is not None:
                with suppress(OSError):
                    os.utime(folder / _TEXT_FILE)  # marks it as used
                yield Notice(f"{sources.name}: using the encoded text in {folder}")
                return corpus
            if (folder / _TEXT_FILE).exists():
                yield Notice(f"{sources.name}: the encoded text in {folder} is damaged; encoding it again")
            _remove_old_entries(cache)
            yield from _encode(sources, settings, folder)
            if (corpus := _found(sources, folder)) is None:
                raise OutputError(f"{folder}: the encoded text was changed while it was written.")
            return corpus


def _is_in_use(folder: Path) -> bool:
    try:
        with lock_folder(folder):
            return False
    except InUseError:
        return True


def _key(sources: Sources, settings: TextSettings) -> str:
    values = [_FORMAT, _stamps(sources), asdict(settings)]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:32]


def _stamps(sources: Sources) -> list[list[Any]]:
    return [
        [file.path, *file.stamp] if file.stamp is not None else [None, hashlib.sha256(file.content or b"").hexdigest()]
        for file in sources.files
    ]


def _found(sources: Sources, folder: Path) -> EncodedCorpus | None:
    """Returns the encoded text in `folder`; None unless it is complete, undamaged and made from these sources."""
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
    # A file may be damaged although its times are unchanged. Checking 2 GB takes a second, encoding them again 17.
    crc32, highest = _checked(token_ids)
    if crc32 != text.crc32 or highest >= text.vocabulary.size:
        return None
    stream = TokenStream(token_ids, starts, text.vocabulary.size)
    return EncodedCorpus(sources.name, text.sha256, text.vocabulary, stream, tuple(text.notices))


def _checked(token_ids: Integer[np.ndarray, " tokens"]) -> tuple[int, int]:
    """Returns the CRC-32 of all ids, and the highest."""
    crc32, highest = 0, 0
    for start in range(0, len(token_ids), _TOKENS_PER_CHECK):
        part = token_ids[start : start + _TOKENS_PER_CHECK]
        crc32, highest = zlib.crc32(part.data, crc32), max(highest, int(part.max()))
    return crc32, highest


def _write_text(folder: Path, text: _Text) -> None:
    body = json.dumps(msgspec.to_builtins(text)).encode()
    write_bytes(folder / _TEXT_FILE, hashlib.sha256(body).hexdigest().encode() + b"\n" + body, _OWNER)


def _read_text(folder: Path) -> _Text | None:
    """Returns what `_write_text` wrote into this folder; None if it is missing or differs in any bit."""
    path = folder / _TEXT_FILE
    try:
        digest, _, body = read_regular_file(path).partition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() != digest:
            return None
        # Not `parse_json`, because file names may not be UTF-8, and the names of millions of files take megabytes.
        text = convert_json(json.loads(body), _Text, str(path))
    except (OSError, ValueError, RecursionError, ModelFileError):
        return None
    return text if text.key == folder.name else None


def _encode(sources: Sources, settings: TextSettings, folder: Path) -> Generator[Event, None, None]:
    start = time.perf_counter()
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
        yield from reader.events()
    if not characters:
        raise sources.empty()
    vocabulary, notices = vocabulary_of(counts, settings)
    reader.total = 2 * reader.read
    second_sha256, crc32 = hashlib.sha256(), 0
    with atomic_write(folder / _TOKENS_FILE, _OWNER) as file:
        for _, piece in reader.pieces(second_sha256):
            token_ids = vocabulary.encode(piece, "replace").tobytes()  # replaces characters rarer than --min-count
            crc32 = zlib.crc32(token_ids, crc32)
            file.write(token_ids)
            yield from reader.events()
        if second_sha256.digest() != sha256.digest():
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
    megabytes, seconds = reader.read / 2e6, max(time.perf_counter() - start, 1e-3)  # clocks may be coarse
    yield Notice(f"{sources.name}: encoded at {megabytes / seconds:,.0f} MB per second into {folder}")


class _Reader:
    """Reads a text's pieces, and counts the bytes."""

    def __init__(self, sources: Sources, settings: TextSettings, folder: Path):
        self._sources = sources
        self._settings = settings
        self._folder = folder
        self.read = 0
        self._reported = 0
        self.total = None if sources.size is None else 2 * sources.size

    def events(self) -> Iterator[Encoding]:
        if self.read - self._reported >= _BYTES_BETWEEN_EVENTS or self._reported == 0:
            self._reported = self.read
            yield Encoding(self._folder, self.read, self.total)

    def pieces(self, sha256: Any) -> Iterator[tuple[int, str | bytes]]:
        """Yields each piece with the number of its file, and updates `sha256` with all bytes."""
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


def _remove_old_entries(cache: Path) -> None:
    """Removes texts whose files have changed, that were not used for a long time, or that were never finished."""
    for entry in list(cache.iterdir()):
        with suppress(OSError, OutputError):  # another process may be removing it too
            if _ENTRY.fullmatch(entry.name) and _has_only_cache_files(entry):
                _remove_if_stale(entry)


def _remove_if_stale(entry: Path) -> None:
    with lock_folder(entry):
        remove_unfinished(entry, _OWNER)
        if _is_stale(entry):
            for name in (_TEXT_FILE, _TOKENS_FILE, LOCK_FILE):
                (entry / name).unlink(missing_ok=True)
            entry.rmdir()  # fails if the folder has other files


def _has_only_cache_files(entry: Path) -> bool:
    """Whether a folder has only files that this module writes."""
    if not entry.is_dir() or entry.is_symlink():
        return False
    names = [path.name for path in entry.iterdir()]
    return all(name in (_TEXT_FILE, _TOKENS_FILE, LOCK_FILE) or is_unfinished(name, _OWNER) for name in names)


def _is_stale(entry: Path) -> bool:
    text = _read_text(entry)
    if text is None:  # another process may be about to start
        return time.time() - entry.stat().st_mtime > _UNFINISHED_SECONDS
    if time.time() - (entry / _TEXT_FILE).stat().st_mtime > _UNUSED_SECONDS:
        return True
    # A missing file may be on a disk that is not connected now.
    return any(
        isinstance(path, str) and os.path.exists(path) and _stamp(Path(path)) != stamp for path, *stamp in text.files
    )


def _stamp(path: Path) -> list[int] | None:
    try:
        return [*stamp_of(path.stat())]
    except OSError:
        return None
