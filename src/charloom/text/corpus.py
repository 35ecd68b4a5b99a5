"""A corpus: the documents that the given sources hold, read, decoded and normalized.

A source is a file, a folder, a glob pattern, `-` for standard input, or a name of the catalog. A compressed file is
read as what it holds.
"""

import codecs
import glob
import hashlib
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import AnyStr

from charloom.errors import SourceError
from charloom.settings import TextSettings
from charloom.text.catalog import CATALOG, read_catalog_bytes, unknown_name
from charloom.text.compression import decompressed

_BYTE_ORDER_MARK = codecs.BOM_UTF8
_GLOB_CHARACTERS = "*?["
_UTF8 = ("utf-8", "utf-8-sig")


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
    sources: Sequence[str | os.PathLike[str]], settings: TextSettings, standard_input: bytes | None = None
) -> Corpus:
    """Returns the corpus that `sources` hold together, in the order given (folders and globs sorted).

    `standard_input` stands in for what `-` would read. In a folder or a glob, binary files are left out; so is a file
    that was read before. A notice says so. Hidden files are not looked at.

    Raises:
        SourceError: a source is missing, unreadable, empty, binary, or in another encoding.
    """
    documents: list[str | bytes] = []
    sha256 = hashlib.sha256()
    skipped: list[str] = []
    repeated: list[str] = []
    paths: set[str] = set()
    for source in sources:
        for name, data, chosen_by_name in _files_of(os.fspath(source), standard_input):
            if not chosen_by_name and _is_binary(data, settings):
                skipped.append(name)
                continue
            # A text given twice would be learnt from and held out at once.
            if (path := os.path.realpath(name)) in paths:
                repeated.append(name)
                continue
            paths.add(path)
            sha256.update(data)
            documents.append(_document(data, name, settings))
    shown = ", ".join(os.fspath(source) for source in sources) or "no source given"
    documents = [document for document in documents if document]
    if not documents:
        if skipped:
            raise SourceError(f"{shown}: no text, only binary files. Pass --bytes to model raw bytes.")
        raise SourceError(f"{shown}: empty. Give a text to learn from.")
    return Corpus(
        name=", ".join(_base_name(os.fspath(source)) for source in sources),
        documents=tuple(documents),
        sha256=sha256.hexdigest(),
        paths=frozenset(paths),
        notices=tuple(
            f"left out as {why}: {_few(names)}"
            for why, names in (("binary", skipped), ("given twice", repeated))
            if names
        ),
    )


def read_standard_input() -> bytes:
    """Returns all that comes from standard input.

    Raises:
        SourceError: there is none.
    """
    if sys.stdin is None:
        raise SourceError("there is no standard input to read.")
    return sys.stdin.buffer.read()


def read_catalog_corpus(name: str, settings: TextSettings) -> Corpus:
    """Returns the text `name` of the catalog, whatever else the working folder has by that name.

    Raises:
        SourceError: it cannot be had.
    """
    data = read_catalog_bytes(name)
    return Corpus(name, (_document(data, name, settings),), hashlib.sha256(data).hexdigest())


def normalize(text: AnyStr, settings: TextSettings) -> AnyStr:
    """Returns `text` as a model with these settings sees it: newlines as \\n, lower-cased if so set.

    Bytes are left as they are.
    """
    if isinstance(text, bytes):
        return text
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.lower() if settings.lowercase else text


def _document(data: bytes, name: str, settings: TextSettings) -> str | bytes:
    return data if settings.units == "bytes" else normalize(_decode(data, name, settings.encoding), settings)


def _files_of(source: str, standard_input: bytes | None) -> Iterator[tuple[str, bytes, bool]]:
    """Yields (name, bytes, whether the user named this very file) for each file of `source`."""
    if not source:
        raise SourceError("a source's name is empty. Give a file, a folder, a pattern or a text of the catalog.")
    if source == "-":
        yield "standard input", read_standard_input() if standard_input is None else standard_input, True
    elif os.path.isdir(source):
        paths = list(_walk(source))
        if not paths:
            raise SourceError(f"{source}: no files in this folder. Give a folder that has text files.")
        for path in paths:
            yield path, _read(path), False
    elif os.path.lexists(source):
        yield source, _read(source), True
    elif any(character in source for character in _GLOB_CHARACTERS):
        paths = [path for path in sorted(glob.glob(source, recursive=True)) if os.path.isfile(path)]
        if not paths:
            raise SourceError(f"{source}: no file matches this pattern.")
        for path in paths:
            yield path, _read(path), False
    elif source in CATALOG:
        yield source, read_catalog_bytes(source), True
    else:
        raise SourceError(_not_found(source))


def _walk(folder: str) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = os.path.join(parent, name)
            if not name.startswith(".") and os.path.isfile(path):
                yield path


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            before = os.fstat(file.fileno())
            data = file.read()
            after = os.fstat(file.fileno())
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}.") from error
    # Of a pipe the time of the last write moves.
    if stat.S_ISREG(before.st_mode) and (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise SourceError(f"{path} changed while it was read. Wait until it is whole, or give a copy of it.")
    return decompressed(path, data)


def _is_binary(data: bytes, settings: TextSettings) -> bool:
    return settings.units == "chars" and _has_no_zero_bytes(settings.encoding) and b"\0" in data


def _has_no_zero_bytes(encoding: str) -> bool:
    return not codecs.lookup(encoding).name.startswith(("utf-16", "utf-32"))


def _decode(data: bytes, name: str, encoding: str) -> str:
    utf8 = codecs.lookup(encoding).name in _UTF8
    if _has_no_zero_bytes(encoding) and b"\0" in data:
        raise SourceError(
            f"{name} is binary, not text: a zero byte at offset {data.index(0)}. "
            "Pass --bytes to model raw bytes, or --encoding (utf-16, say) if it is text."
        )
    # Cut off by hand, so that the offsets in errors count from the file's first byte.
    skipped = len(_BYTE_ORDER_MARK) if utf8 and data.startswith(_BYTE_ORDER_MARK) else 0
    try:
        text = data[skipped:].decode("utf-8" if utf8 else encoding)
        if not utf8:
            text.encode()  # some encodings let lone surrogates through, which are no characters
        return text
    except UnicodeError as error:
        where = ""
        if isinstance(error, UnicodeDecodeError):
            offset = skipped + error.start
            where = f": byte 0x{data[offset]:02x} at offset {offset}"
        raise SourceError(
            f"cannot decode {name} as {encoding}{where}. "
            "Pass --encoding (cp1252 is common), or --bytes to model raw bytes."
        ) from error


def _not_found(source: str) -> str:
    if os.path.basename(source) == source and not os.path.splitext(source)[1]:
        return f"no file or folder is named {source}, and {unknown_name(source)}"
    return f"no file or folder is named {source}. Check the path; `charloom corpora` lists texts that need none."


def _base_name(source: str) -> str:
    if source == "-":
        return "standard input"
    # A name that is no UTF-8 is kept as far as it is.
    return os.fsencode(os.path.basename(os.path.abspath(source))).decode("utf-8", "replace")


def _few(names: Sequence[str]) -> str:
    return ", ".join(map(_base_name, names[:3])) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
