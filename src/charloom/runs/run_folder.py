"""A run's folder: what it was asked for, its last checkpoints, and its metrics.

`run.json` has the settings and what the text and the machine were, `checkpoint-*.safetensors` the last two states to go
on from, `metrics.jsonl` an object for each evaluation, `standard-input` the text where it came from a pipe, and
`output.json` which model files are this run's.
"""

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from charloom.artifacts import lock_folder, make_folder, read_regular_file, remove_own, remove_unfinished, write_bytes
from charloom.errors import ModelFileError, OutputError, RunFolderError
from charloom.printable import shell_path
from charloom.runs.checkpoint import CHECKPOINT, State, read_progress, read_state, write_checkpoint
from charloom.runs.checkpoint_progress import CheckpointProgress
from charloom.runs.metrics_file import METRICS_FILE, MetricsFile
from charloom.runs.run_file import RUN_FILE, RunFile, as_json, read_run

_STANDARD_INPUT_FILE = "standard-input"
_OUTPUT_FILE = "output.json"
_OWN_FILES = re.compile(r"run\.json|metrics\.jsonl|standard-input|output\.json|checkpoint-\d+\.safetensors")
_CHECKPOINT_FILE = re.compile(r"checkpoint-(\d+)\.safetensors")
_OWNER = "run"
_MOST_OUTPUT_BYTES = 10_000
_KEPT = 2
_MOST_TOLD = 3
# A checkpoint is due after this time, or later where writing one takes more than a hundredth of it.
_SECONDS_BETWEEN = 10.0
_COST = 0.01


class RunFolder:
    """An opened folder, which no other process works in.

    Attributes:
        path: where it is.
        metrics: an object for each evaluation.
        seconds_between: two checkpoints.
    """

    def __init__(self, path: Path):
        self.path = path
        self.metrics = MetricsFile(path / METRICS_FILE)
        self._written = time.monotonic()
        self.seconds_between = _SECONDS_BETWEEN

    @classmethod
    @contextmanager
    def opened(cls, path: Path, *, fresh: bool) -> Iterator["RunFolder"]:
        """Opens the folder of a run that is to begin (`fresh`), which must hold none yet, or of one to go on with.

        Raises:
            OutputError: it holds a run already, is in use, or cannot be written to.
            RunFolderError: it holds no run to resume.
        """
        if not fresh:
            read_run(path)
        make_folder(path)
        with lock_folder(path):
            folder = cls(path)
            held = (RUN_FILE, METRICS_FILE, _OUTPUT_FILE)
            if fresh and (any((path / name).exists() for name in held) or folder._checkpoints()):
                raise OutputError(
                    f"{path} holds a run already. Go on with it by --resume {shell_path(path)}, or give another folder."
                )
            remove_unfinished(path, _OWNER)
            yield folder

    def write_run(self, run: RunFile) -> None:
        """Writes down what the run is.

        Raises:
            OutputError: it cannot be written.
        """
        write_bytes(self.path / RUN_FILE, as_json(run), _OWNER)

    def forget(self) -> None:
        """Makes as if `write_run` had not been."""
        (self.path / RUN_FILE).unlink(missing_ok=True)

    def keep_standard_input(self, data: bytes) -> None:
        """Keeps a text that cannot be read a second time.

        Raises:
            OutputError: it cannot be written, or another file has its name.
        """
        path = self.path / _STANDARD_INPUT_FILE
        with suppress(FileNotFoundError):
            if not (self.path / RUN_FILE).exists() and read_regular_file(path) != data:
                raise OutputError(f"cannot write {path}: another file has that name. Move it, or give another folder.")
        write_bytes(path, data, _OWNER)

    def standard_input(self) -> bytes:
        """Returns the text that was kept.

        Raises:
            RunFolderError: it cannot be read.
        """
        path = self.path / _STANDARD_INPUT_FILE
        try:
            return read_regular_file(path)
        except OSError as error:
            raise RunFolderError(
                f"cannot read {path}, the copy of the text that came from standard input: {error.strerror or error}. "
                f"Give the text again: charloom train --resume {shell_path(self.path)} TEXT."
            ) from error

    @property
    def is_checkpoint_due(self) -> bool:
        """Whether it is time for another one."""
        return time.monotonic() - self._written >= self.seconds_between

    def write_checkpoint(self, state: Any, progress: Mapping[str, Any]) -> Path:
        """Writes a checkpoint and removes all but the last two; returns its path.

        Raises:
            OutputError: it cannot be written; the ones before are as they were.
        """
        begin = self._written = time.monotonic()  # also where it fails: it is tried again when the next is due
        older = self._checkpoints()
        path = self.path / f"checkpoint-{_number(older[-1]) + 1 if older else 1:06d}.safetensors"
        write_checkpoint(path, state, progress)
        for spent in older[: 1 - _KEPT]:
            with suppress(OutputError):
                remove_own(spent, CHECKPOINT)
        self._written = time.monotonic()
        self.seconds_between = max(_SECONDS_BETWEEN, (self._written - begin) / _COST)
        return path

    def newest_checkpoint(
        self, like: State, checked: Callable[[Any, Path], CheckpointProgress]
    ) -> tuple[tuple[Path, State, CheckpointProgress] | None, list[str]]:
        """Returns the newest good checkpoint, its state and its progress, and lines on those that are passed over.

        None if there is none: the run was ended before its first.

        Args:
            like: a state of the same structure and shapes.
            checked: returns the progress that JSON values are, or raises `ModelFileError`.

        Raises:
            RunFolderError: there are some, and none is good.
        """
        problems: list[str] = []
        found = None
        for path in reversed(self._checkpoints()):
            try:
                progress = checked(read_progress(path), path)
                found = path, read_state(path, like), progress
                break
            except ModelFileError as error:
                problems.append(str(error))
        if problems and found is None:
            raise RunFolderError(
                f"{self.path} has no good checkpoint. {problems[0]} Put one back, or begin another run."
            )
        told = [f"{problem} The one before it is used" for problem in problems[:_MOST_TOLD]]
        if len(problems) > _MOST_TOLD:
            told.append(f"{len(problems) - _MOST_TOLD:,} more checkpoints before it are passed over")
        return found, told

    def outputs(self) -> list[str]:
        """Returns the SHA-256 of the model files that the run wrote last."""
        try:
            return [
                str(sha256)
                for sha256 in json.loads(read_regular_file(self.path / _OUTPUT_FILE, _MOST_OUTPUT_BYTES))["sha256"]
            ]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return []

    def record_output(self, sha256: str) -> None:
        """Writes down that a model file is this run's, before it is there; the last few stay written down.

        Raises:
            OutputError: it cannot be written.
        """
        kept = [one for one in self.outputs() if one != sha256][-7:]
        text = json.dumps({"sha256": [*kept, sha256]})
        write_bytes(self.path / _OUTPUT_FILE, text.encode(), _OWNER)

    def keeps(self, path: Path) -> bool:
        """Returns whether the folder keeps a file of its own at `path`."""
        here = os.path.realpath(path.parent) == os.path.realpath(self.path)
        return here and _OWN_FILES.fullmatch(path.name) is not None

    def _checkpoints(self) -> list[Path]:
        return sorted((path for path in self.path.iterdir() if _CHECKPOINT_FILE.fullmatch(path.name)), key=_number)


def _number(checkpoint: Path) -> int:
    return int(checkpoint.stem.rpartition("-")[2])
