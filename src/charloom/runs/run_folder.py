"""A run folder: the run's settings, its last checkpoints, and its metrics.

- `run.json`: the settings, the text and the machine.
- `checkpoint-*.safetensors`: the last two states to resume from.
- `metrics.jsonl`: an object for each evaluation.
- `standard-input`: the text, if it came from a pipe.
- `output.json`: the digests of the run's model files.
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
_MAX_OUTPUT_FILE_BYTES = 10_000
_CHECKPOINTS_KEPT = 2
_MAX_NOTICES = 3
# A checkpoint is due after this time, or later if writing one takes more than this fraction of the time.
_MIN_SECONDS_BETWEEN = 10.0
_MAX_TIME_FRACTION = 0.01


class RunFolder:
    """An opened run folder, locked against other processes.

    Attributes:
        path: the folder's path.
        metrics: the file with an object for each evaluation.
        seconds_between: time between two checkpoints.
    """

    def __init__(self, path: Path):
        self.path = path
        self.metrics = MetricsFile(path / METRICS_FILE)
        self._written = time.monotonic()
        self.seconds_between = _MIN_SECONDS_BETWEEN

    @classmethod
    @contextmanager
    def opened(cls, path: Path, *, fresh: bool) -> Iterator["RunFolder"]:
        """Opens the folder of a new run (`fresh`), or of a run to resume.

        Raises:
            OutputError: a new run's folder already holds a run, or it is in use, or it cannot be written to.
            RunFolderError: the folder does not hold a run to resume.
        """
        if not fresh:
            read_run(path)
        make_folder(path)
        with lock_folder(path):
            folder = cls(path)
            names = (RUN_FILE, METRICS_FILE, _OUTPUT_FILE)
            if fresh and (any((path / name).exists() for name in names) or folder._checkpoints()):
                raise OutputError(
                    f"{path} already holds a run. Resume it with --resume {shell_path(path)}, or give another folder."
                )
            remove_unfinished(path, _OWNER)
            yield folder

    def write_run(self, run: RunFile) -> None:
        """Writes `run.json`.

        Raises:
            OutputError: the file cannot be written.
        """
        write_bytes(self.path / RUN_FILE, as_json(run), _OWNER)

    def remove_run(self) -> None:
        """Removes `run.json`, so that the folder is free for another run."""
        (self.path / RUN_FILE).unlink(missing_ok=True)

    def keep_standard_input(self, data: bytes) -> None:
        """Keeps a text from a pipe, which cannot be read a second time.

        Raises:
            OutputError: the file cannot be written, or another file has its name.
        """
        path = self.path / _STANDARD_INPUT_FILE
        with suppress(FileNotFoundError):
            if not (self.path / RUN_FILE).exists() and read_regular_file(path) != data:
                raise OutputError(f"cannot write {path}: another file has this name. Move it, or give another folder.")
        write_bytes(path, data, _OWNER)

    def standard_input(self) -> bytes:
        """Returns the text from a pipe that was kept.

        Raises:
            RunFolderError: the file cannot be read.
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
        """Whether it is time for the next checkpoint."""
        return time.monotonic() - self._written >= self.seconds_between

    def write_checkpoint(self, state: Any, progress: Mapping[str, Any]) -> Path:
        """Writes a checkpoint and removes all but the last two; returns its path.

        Raises:
            OutputError: the checkpoint cannot be written; earlier ones are unchanged.
        """
        start = self._written = time.monotonic()  # if this fails, the next attempt waits until a checkpoint is due
        older = self._checkpoints()
        path = self.path / f"checkpoint-{_number(older[-1]) + 1 if older else 1:06d}.safetensors"
        write_checkpoint(path, state, progress)
        for surplus in older[: 1 - _CHECKPOINTS_KEPT]:
            with suppress(OutputError):
                remove_own(surplus, CHECKPOINT)
        self._written = time.monotonic()
        self.seconds_between = max(_MIN_SECONDS_BETWEEN, (self._written - start) / _MAX_TIME_FRACTION)
        return path

    def newest_checkpoint(
        self, like: State, checked: Callable[[Any, Path], CheckpointProgress]
    ) -> tuple[tuple[Path, State, CheckpointProgress] | None, list[str]]:
        """Returns the path, state and progress of the newest good checkpoint, and notices about damaged ones.

        The checkpoint is None if the run ended before writing its first.

        Args:
            like: a state with the same structure and shapes.
            checked: converts JSON values to progress, or raises `ModelFileError`.

        Raises:
            RunFolderError: there are checkpoints, but all are damaged.
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
                f"{self.path} does not hold a good checkpoint. {problems[0]} Restore one, or start another run."
            )
        notices = [f"{problem} Trying the checkpoint before it" for problem in problems[:_MAX_NOTICES]]
        if len(problems) > _MAX_NOTICES:
            notices.append(f"skipping {len(problems) - _MAX_NOTICES:,} more damaged checkpoints")
        return found, notices

    def outputs(self) -> list[str]:
        """Returns the SHA-256 digests of the model files that the run wrote last."""
        try:
            return [
                str(sha256)
                for sha256 in json.loads(read_regular_file(self.path / _OUTPUT_FILE, _MAX_OUTPUT_FILE_BYTES))["sha256"]
            ]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return []

    def record_output(self, sha256: str) -> None:
        """Records the digest of a model file before the file is written. Only the last few digests are kept.

        Raises:
            OutputError: the record cannot be written.
        """
        kept = [earlier for earlier in self.outputs() if earlier != sha256][-7:]
        text = json.dumps({"sha256": [*kept, sha256]})
        write_bytes(self.path / _OUTPUT_FILE, text.encode(), _OWNER)

    def uses(self, path: Path) -> bool:
        """Returns whether `path` is one of the folder's own files."""
        is_inside = os.path.realpath(path.parent) == os.path.realpath(self.path)
        return is_inside and _OWN_FILES.fullmatch(path.name) is not None

    def _checkpoints(self) -> list[Path]:
        return sorted((path for path in self.path.iterdir() if _CHECKPOINT_FILE.fullmatch(path.name)), key=_number)


def _number(checkpoint: Path) -> int:
    return int(checkpoint.stem.rpartition("-")[2])
