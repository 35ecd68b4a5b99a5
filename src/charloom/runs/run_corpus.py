"""The text of a run: finds it, reads it, checks it against the run folder or a model, and splits it."""

import os
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

import msgspec

from charloom.errors import OutputError, RunFolderError, SourceError
from charloom.printable import shell_path
from charloom.runs.dataset_split import DatasetSplit, split_corpus
from charloom.runs.repeating import require_same_text
from charloom.runs.run_file import RunFile, TextIdentity, read_run, run_file
from charloom.runs.run_folder import RunFolder
from charloom.runs.run_settings import RunSettings
from charloom.runs.this_machine import machine_changes
from charloom.runs.token_cache import LARGE_TEXT_BYTES, EncodedCorpus, encoded_corpus
from charloom.text import Corpus, Sources, find_sources, read_corpus, read_standard_input
from charloom.training import Event, Notice


def find_text(settings: RunSettings, folder: RunFolder | None) -> Sources:
    """Returns the text's files. The folder keeps a copy of a text from a pipe, to resume the run."""
    standard_input = None
    if folder is not None and "-" in settings.sources:
        if settings.resume and not settings.text_given:
            standard_input = folder.standard_input()
        else:
            standard_input = read_standard_input()
        if not settings.resume:
            folder.keep_standard_input(standard_input)
    try:
        return find_sources(settings.sources, settings.text, standard_input)
    except SourceError as error:
        if folder is None or not settings.resume or settings.text_given:
            raise
        raise SourceError(
            f"{error} If the text has moved: charloom train --resume {shell_path(folder.path)} TEXT."
        ) from error


def read_and_split(
    settings: RunSettings, folder: RunFolder | None, sources: Sources
) -> Generator[Event, None, tuple[DatasetSplit, dict[str, str | int], RunFile | None]]:
    """Reads the text, and returns its parts, its identity, and the run file of a resumed run.

    The run file has the current paths. It is None for a new run.

    Raises:
        CharloomError: something is wrong with the text.
    """
    for path in (None if folder is None else folder.path, settings.cache):
        if path is not None:
            _require_outside(path, settings.sources, sources)
    corpus = yield from _read(sources, settings)
    identity, stored = corpus.metadata, None
    if settings.repeated is not None:
        require_same_text(settings.repeated.trained_on, identity)
        identity = {**identity, "name": str(settings.repeated.trained_on.get("name", identity["name"]))}
        if (changes := machine_changes(settings.repeated.training.get("machine", {}))) is not None:
            yield Notice(f"the model may differ from the original in its last bits: {changes}")
    if folder is not None and settings.resume:
        stored = _run_of_this_text(folder, settings, identity)
        for file in sources.files:
            if file.path == "-" and settings.text_given:
                folder.keep_standard_input(file.content or b"")
        identity = msgspec.to_builtins(stored.trained_on)  # with the name that the text had at first
        if (changes := machine_changes(stored.machine)) is not None:
            yield Notice(f"the model may differ from that of an uninterrupted run in its last bits: {changes}")
    yield from map(Notice, sources.notices)
    if isinstance(corpus, Corpus):
        return split_corpus(corpus, settings.text, settings.training), identity, stored
    return corpus.split(settings.training), identity, stored


def _read(sources: Sources, settings: RunSettings) -> Generator[Event, None, Corpus | EncodedCorpus]:
    is_large = sources.estimated_size >= LARGE_TEXT_BYTES and settings.text.delimiter is None
    if is_large or settings.cache is not None:
        return (yield from encoded_corpus(sources, settings.text, settings.cache))
    return read_corpus(sources, settings.text)


def _require_outside(folder: Path, given: Sequence[str | os.PathLike[str]], found: Sources) -> None:
    """Raises `OutputError` if a later run would read `folder` as a part of the text."""
    real_folder = Path(os.path.realpath(folder))
    roots = [os.fspath(source).partition("**")[0] or "." for source in given if "**" in os.fspath(source)]
    roots += [os.fspath(source) for source in given if os.path.isdir(source)]
    inside = [root for root in roots if real_folder.is_relative_to(os.path.realpath(root))]
    inside += [path for path in found.paths if Path(path).is_relative_to(real_folder)]
    if inside:
        raise OutputError(
            f"{folder} is inside {inside[0]}, so charloom would read it as text. Give a folder outside of it."
            if inside[0] in roots
            else f"{inside[0]} is inside {folder}, which is not for texts. Give another folder, or other sources."
        )


def _run_of_this_text(folder: RunFolder, settings: RunSettings, found: Mapping[str, str | int]) -> RunFile:
    """Returns the run file in `folder`, and updates it if paths have changed.

    Raises:
        RunFolderError: the text is a different one now.
    """
    stored = read_run(folder.path)
    text = msgspec.convert(found, TextIdentity)
    if (stored.trained_on.sha256, stored.trained_on.characters) != (text.sha256, text.characters):
        raise RunFolderError(
            f"{folder.path} is a run on {stored.trained_on}, but the text is now {text}. Restore it, give it with "
            f"charloom train --resume {shell_path(folder.path)} TEXT, or start another run."
        )
    updated = run_file(folder.path, settings, msgspec.to_builtins(stored.trained_on), stored.machine)
    if updated != stored:
        folder.write_run(updated)
    return updated
