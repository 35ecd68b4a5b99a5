"""`run.json`: the settings and the text of a run, checked when they are read back.

Its digest covers everything that changes the result: settings, text and version. Each checkpoint stores the digest too.
"""

import glob
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import quote, unquote

import msgspec
from msgspec import Meta, Struct

from charloom import __version__
from charloom.artifacts import convert_json, parse_json, read_regular_file
from charloom.errors import RunFolderError, SettingError
from charloom.printable import one_line, shell_path
from charloom.runs.run_settings import RunSettings
from charloom.settings import NetworkSettings, TextSettings, TrainingSettings
from charloom.text import CORPORA

RUN_FILE = "run.json"
_MAX_RUN_FILE_BYTES = 1 << 20
_REMEDY = "Restore it, or start another run with --run."

_Path = Annotated[str, Meta(pattern=r"\A[^\x00]+\Z", max_length=16_384)]
_Settings = TypeVar("_Settings", TextSettings, NetworkSettings, TrainingSettings)
Sha256 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]


class TextIdentity(Struct, forbid_unknown_fields=True, frozen=True):
    """What identifies a text; see `charloom.text.Corpus`."""

    name: Annotated[str, Meta(max_length=1 << 16)]
    sha256: Sha256
    characters: Annotated[int, Meta(ge=1, le=2**53)]

    def __str__(self) -> str:
        return f"{one_line(self.name)[:100]} ({self.characters:,} characters, SHA-256 {self.sha256[:12]}…)"


class StoredSettings(Struct, forbid_unknown_fields=True, frozen=True):
    """`RunSettings` in a file. Paths are relative to the run folder, unless only the root is common to both."""

    sources: Annotated[list[_Path], Meta(min_length=1)]
    out: _Path | None
    cache: _Path | None
    text: TextSettings
    network: NetworkSettings
    training: TrainingSettings


class RunFile(Struct, forbid_unknown_fields=True, frozen=True):
    """The content of `run.json`.

    Attributes:
        version: the version of charloom.
        digest: the digest of the version, the settings and the text; see `run_digest`.
        folder: where the run folder was when this was written.
        settings: the settings that were given, and those that were picked for a budget.
        trained_on: the training text.
        machine: properties of the machine that change the last bits of a result.
    """

    version: str
    digest: Sha256
    folder: _Path
    settings: StoredSettings
    trained_on: TextIdentity
    machine: Annotated[dict[str, Annotated[str, Meta(max_length=1_000)]], Meta(max_length=100)]


def run_digest(settings: RunSettings | StoredSettings, trained_on: TextIdentity) -> str:
    """Returns the SHA-256 of everything that changes the result of a run, in hexadecimal."""
    values: list[Any] = [__version__, trained_on.sha256, trained_on.characters]
    values += [as_read_back(settings.text), as_read_back(settings.network), as_read_back(settings.training)]
    return hashlib.sha256(msgspec.json.encode(values, order="deterministic")).hexdigest()


def as_read_back(settings: _Settings) -> _Settings:
    """Returns the settings as a file would give them back: a rate of 1 becomes 1.0, as in a resumed run."""
    return msgspec.convert(json.loads(json.dumps(asdict(settings))), type(settings))


def run_file(
    folder: Path, settings: RunSettings, trained_on: Mapping[str, str | int], machine: Mapping[str, str]
) -> RunFile:
    """Returns the content for `run.json` in `folder`."""
    text = msgspec.convert(trained_on, TextIdentity)
    real_folder = os.path.realpath(folder)
    stored = StoredSettings(
        sources=[_stored_source(os.fspath(source), real_folder) for source in settings.sources],
        out=None if settings.out is None else _stored_path(str(settings.out), real_folder),
        cache=None if settings.cache is None else _stored_path(str(settings.cache), real_folder),
        text=settings.text,
        network=settings.network,
        training=settings.training,
    )
    return RunFile(__version__, run_digest(settings, text), _escaped(real_folder), stored, text, dict(machine))


def settings_of_run(folder: Path, *, samples: bool = False) -> RunSettings:
    """Returns the settings with which to resume the run in `folder`.

    A relative path is resolved from where the folder is now. If nothing is there, it is resolved from where it was.

    Raises:
        RunFolderError: as `read_run` raises it.
    """
    run = read_run(folder)
    stored = run.settings
    folders = os.path.realpath(folder), unquote(run.folder, errors="surrogateescape")
    try:
        return RunSettings(
            sources=tuple(
                source if _is_name(source) else _found_path(source, folders, _exists) for source in stored.sources
            ),
            out=None if stored.out is None else Path(_found_path(stored.out, folders, _has_folder)),
            cache=None if stored.cache is None else Path(_found_path(stored.cache, folders, _has_folder)),
            text=stored.text,
            network=stored.network,
            training=stored.training,
            folder=folder,
            resume=True,
            samples=samples,
        )
    except SettingError as error:
        raise RunFolderError(f"{folder / RUN_FILE}: settings.{error}. {_REMEDY}") from None


def read_run(folder: Path) -> RunFile:
    """Returns the content of `run.json` in `folder`.

    Raises:
        RunFolderError: there is no run, or its file is damaged, was changed, or comes from another version.
    """
    file = folder / RUN_FILE
    try:
        content = read_regular_file(file, _MAX_RUN_FILE_BYTES)
    except FileNotFoundError:
        raise RunFolderError(_nothing_in(folder)) from None
    except OSError as error:
        raise RunFolderError(f"cannot read {file}: {error.strerror or error}.") from error
    data = parse_json(content, str(file), RunFolderError)
    version = data.get("version") if isinstance(data, dict) else None
    if isinstance(version, str) and version != __version__:
        raise RunFolderError(
            f"{folder} holds a run of charloom {one_line(version)[:40]}, but this is {__version__}. Resume it with "
            "that version, or start another run."
        )
    run = convert_json(data, RunFile, str(file), RunFolderError, _REMEDY)
    if run.digest != run_digest(run.settings, run.trained_on):
        raise RunFolderError(
            f"{file} was changed after it was written: its digest does not match its settings and text. {_REMEDY}"
        )
    return run


def as_json(run: RunFile) -> bytes:
    """Returns the file content that `read_run` reads."""
    return json.dumps(msgspec.to_builtins(run), indent=1).encode()


def _nothing_in(folder: Path) -> str:
    if folder.is_dir() and any(path.name.startswith("checkpoint-") for path in folder.iterdir()):
        return f"{folder} has checkpoints, but the file {RUN_FILE} is missing. {_REMEDY}"
    return f"{folder} does not hold a run to resume. Start one with `charloom train SOURCE --run {shell_path(folder)}`."


def _is_name(source: str) -> bool:
    """Whether a stored source is a text's name or standard input. A stored path is absolute or begins with `..`."""
    return source == "-" or source in CORPORA


def _stored_source(source: str, folder: str) -> str:
    return source if _is_name(source) and not os.path.isabs(source) else _stored_path(source, folder)


def _stored_path(path: str, folder: str) -> str:
    """Returns an absolute path relative to `folder`, unless they share only the root."""
    parent, name = os.path.split(path)
    path = os.path.join(os.path.realpath(parent), name)
    try:
        if os.path.dirname(common := os.path.commonpath((path, folder))) != common:
            path = os.path.relpath(path, folder)
    except ValueError:  # on another drive
        pass
    return _escaped(path)


def _escaped(path: str) -> str:
    """Returns a path as Unicode. Percent signs and bytes that are not UTF-8 are escaped as in a URL."""
    return re.sub("[%\ud800-\udfff]", lambda found: quote(found[0], errors="surrogateescape"), path)


def _found_path(stored: str, folders: tuple[str, ...], is_good: Callable[[str], bool]) -> str:
    path = unquote(stored, errors="surrogateescape")
    paths = [os.path.normpath(os.path.join(folder, path)) for folder in folders]
    return next((path for path in paths if is_good(path)), paths[0])


def _exists(source: str) -> bool:
    return os.path.lexists(source) or bool(glob.glob(source, recursive=True))


def _has_folder(path: str) -> bool:
    return os.path.isdir(os.path.dirname(path))
