"""`run.json`: what a run was asked for and on which text, checked when it is read back.

Its digest covers everything that changes the result: settings, text and version. Each checkpoint has the digest, too.
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
_MOST_RUN_BYTES = 1 << 20
_REMEDY = "Restore it, or begin another run with --run."

_Path = Annotated[str, Meta(pattern=r"\A[^\x00]+\Z", max_length=16_384)]
_Settings = TypeVar("_Settings", TextSettings, NetworkSettings, TrainingSettings)
Sha256 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]


class TextFacts(Struct, forbid_unknown_fields=True, frozen=True):
    """What distinguishes a text from another one; see `charloom.text.Corpus`."""

    name: Annotated[str, Meta(max_length=1 << 16)]
    sha256: Sha256
    characters: Annotated[int, Meta(ge=1, le=2**53)]

    def __str__(self) -> str:
        return f"{one_line(self.name)[:100]} ({self.characters:,} characters, SHA-256 {self.sha256[:12]}…)"


class HeldSettings(Struct, forbid_unknown_fields=True, frozen=True):
    """`RunSettings` in a file; paths are relative to the run's folder if both have a parent other than the root."""

    sources: Annotated[list[_Path], Meta(min_length=1)]
    out: _Path | None
    cache: _Path | None
    text: TextSettings
    network: NetworkSettings
    training: TrainingSettings


class RunFile(Struct, forbid_unknown_fields=True, frozen=True):
    """The content of `run.json`.

    Attributes:
        version: of charloom.
        digest: of the version, the settings and the text; see `run_digest`.
        folder: where the run's folder was when this was written.
        settings: what was asked for, and with a budget what was picked.
        trained_on: the text.
        machine: facts that change the last bits of a result.
    """

    version: str
    digest: Sha256
    folder: _Path
    settings: HeldSettings
    trained_on: TextFacts
    machine: Annotated[dict[str, Annotated[str, Meta(max_length=1_000)]], Meta(max_length=100)]


def run_digest(settings: RunSettings | HeldSettings, trained_on: TextFacts) -> str:
    """Returns the SHA-256 of everything that changes what a run trains, as hexadecimal digits."""
    parts: list[Any] = [__version__, trained_on.sha256, trained_on.characters]
    parts += [as_read_back(settings.text), as_read_back(settings.network), as_read_back(settings.training)]
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()


def as_read_back(settings: _Settings) -> _Settings:
    """Returns the settings as they come back from a file: a rate of 1 is 1.0, as a resumed run has it."""
    return msgspec.convert(json.loads(json.dumps(asdict(settings))), type(settings))


def run_file(
    folder: Path, settings: RunSettings, trained_on: Mapping[str, str | int], machine: Mapping[str, str]
) -> RunFile:
    """Returns what `run.json` in `folder` is to hold."""
    text = msgspec.convert(trained_on, TextFacts)
    place = os.path.realpath(folder)
    held = HeldSettings(
        sources=[_held_source(os.fspath(source), place) for source in settings.sources],
        out=None if settings.out is None else _held_path(str(settings.out), place),
        cache=None if settings.cache is None else _held_path(str(settings.cache), place),
        text=settings.text,
        network=settings.network,
        training=settings.training,
    )
    return RunFile(__version__, run_digest(settings, text), _escaped(place), held, text, dict(machine))


def settings_of_run(folder: Path, *, samples: bool = False) -> RunSettings:
    """Returns the settings to resume the run in `folder` with.

    A relative path leads from where the folder is now, or if nothing is there from where it was.

    Raises:
        RunFolderError: as of `read_run`.
    """
    run = read_run(folder)
    held = run.settings
    places = os.path.realpath(folder), unquote(run.folder, errors="surrogateescape")
    try:
        return RunSettings(
            sources=tuple(
                source if _is_name(source) else _found_path(source, places, _is_there) for source in held.sources
            ),
            out=None if held.out is None else Path(_found_path(held.out, places, _has_folder)),
            cache=None if held.cache is None else Path(_found_path(held.cache, places, _has_folder)),
            text=held.text,
            network=held.network,
            training=held.training,
            folder=folder,
            resume=True,
            samples=samples,
        )
    except SettingError as error:
        raise RunFolderError(f"{folder / RUN_FILE}: settings.{error}. {_REMEDY}") from None


def read_run(folder: Path) -> RunFile:
    """Returns the content of `run.json` in `folder`.

    Raises:
        RunFolderError: there is no run, its file is damaged, was changed, or comes from another version.
    """
    file = folder / RUN_FILE
    try:
        content = read_regular_file(file, _MOST_RUN_BYTES)
    except FileNotFoundError:
        raise RunFolderError(_nothing_in(folder)) from None
    except OSError as error:
        raise RunFolderError(f"cannot read {file}: {error.strerror or error}.") from error
    data = parse_json(content, str(file), RunFolderError)
    version = data.get("version") if isinstance(data, dict) else None
    if isinstance(version, str) and version != __version__:
        raise RunFolderError(
            f"{folder} holds a run of charloom {one_line(version)[:40]}, and this is {__version__}. Go on with that "
            "version, or begin another run."
        )
    run = convert_json(data, RunFile, str(file), RunFolderError, _REMEDY)
    if run.digest != run_digest(run.settings, run.trained_on):
        raise RunFolderError(
            f"{file} was changed after it was written: its digest is not that of its settings and text. {_REMEDY}"
        )
    return run


def as_json(run: RunFile) -> bytes:
    """Returns what `read_run` reads."""
    return json.dumps(msgspec.to_builtins(run), indent=1).encode()


def _nothing_in(folder: Path) -> str:
    if folder.is_dir() and any(path.name.startswith("checkpoint-") for path in folder.iterdir()):
        return f"{folder} has checkpoints, but no {RUN_FILE} to resume with. {_REMEDY}"
    return f"{folder} holds no run to resume. `charloom train SOURCE --run {shell_path(folder)}` begins one."


def _is_name(source: str) -> bool:
    """Whether a held source is the name of a text, or standard input; a path is absolute or begins with `..`."""
    return source == "-" or source in CORPORA


def _held_source(source: str, folder: str) -> str:
    return source if _is_name(source) and not os.path.isabs(source) else _held_path(source, folder)


def _held_path(path: str, folder: str) -> str:
    """Returns an absolute path relative to `folder`, unless they have only the root in common."""
    parent, name = os.path.split(path)
    path = os.path.join(os.path.realpath(parent), name)
    try:
        if os.path.dirname(common := os.path.commonpath((path, folder))) != common:
            path = os.path.relpath(path, folder)
    except ValueError:  # on another drive
        pass
    return _escaped(path)


def _escaped(path: str) -> str:
    """Returns a path as Unicode: bytes that are not UTF-8, and percent signs, as %FF in a URL."""
    return re.sub("[%\ud800-\udfff]", lambda found: quote(found[0], errors="surrogateescape"), path)


def _found_path(held: str, folders: tuple[str, ...], is_good: Callable[[str], bool]) -> str:
    path = unquote(held, errors="surrogateescape")
    paths = [os.path.normpath(os.path.join(folder, path)) for folder in folders]
    return next((path for path in paths if is_good(path)), paths[0])


def _is_there(source: str) -> bool:
    return os.path.lexists(source) or bool(glob.glob(source, recursive=True))


def _has_folder(path: str) -> bool:
    return os.path.isdir(os.path.dirname(path))
