"""A run's folder: what it was asked for, its last checkpoints, and its metrics.

`run.json` has the settings and what the text and the machine were, `checkpoint-*.safetensors` the last two states to go
on from, `metrics.jsonl` an object for each evaluation, and `standard-input` the text where it came from a pipe.
"""

import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from charloom import __version__
from charloom.artifacts import alone_in, cannot_write, make_folder, write_bytes
from charloom.errors import ModelFileError, OutputError, RunFolderError
from charloom.runs.checkpoint import State, read_progress, read_state, write_checkpoint

_RUN_FILE = "run.json"
_METRICS_FILE = "metrics.jsonl"
_STANDARD_INPUT_FILE = "standard-input"
_CHECKPOINT_FILE = re.compile(r"checkpoint-(\d+)\.safetensors")
_KEPT = 2
# A checkpoint is due after this time, or later where writing one takes more than a hundredth of it.
_SECONDS_BETWEEN = 10.0
_COST = 0.01


class RunFolder:
    """An opened folder, which no other process works in.

    Attributes:
        path: where it is.
        seconds_between: two checkpoints.
    """

    def __init__(self, path: Path):
        self.path = path
        self._written = time.monotonic()
        self.seconds_between = _SECONDS_BETWEEN

    @classmethod
    @contextmanager
    def opened(cls, path: Path, *, fresh: bool) -> Iterator["RunFolder"]:
        """Opens the folder of a run that is to begin (`fresh`), which must hold none yet, or of one to go on with.

        Raises:
            OutputError: it holds a run already, is in use, or cannot be written to.
            RunFolderError: it holds no run to go on with.
        """
        if not fresh:
            read_run(path)
        make_folder(path)
        with alone_in(path):
            folder = cls(path)
            if fresh and ((path / _RUN_FILE).exists() or (path / _METRICS_FILE).exists() or folder._checkpoints()):
                raise OutputError(
                    f"{path} holds a run already. Go on with it by --resume {path}, or give another folder."
                )
            for left in path.glob(".*.tmp"):  # by a process that was killed while it wrote
                left.unlink(missing_ok=True)
            yield folder

    def begin(self, run: Mapping[str, Any]) -> None:
        """Writes down what the run is; `run` are JSON values."""
        text = json.dumps({"version": __version__, **run}, indent=1)
        write_bytes(self.path / _RUN_FILE, text.encode())

    def forget(self) -> None:
        """Makes as if `begin` had not been."""
        (self.path / _RUN_FILE).unlink(missing_ok=True)

    def keep_standard_input(self, data: bytes) -> None:
        """Keeps a text that cannot be read a second time."""
        write_bytes(self.path / _STANDARD_INPUT_FILE, data)

    def standard_input(self) -> bytes | None:
        """Returns the text that was kept; None where there is none."""
        path = self.path / _STANDARD_INPUT_FILE
        return path.read_bytes() if path.exists() else None

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
            with suppress(OSError):
                spent.unlink()
        self._written = time.monotonic()
        self.seconds_between = max(_SECONDS_BETWEEN, (self._written - begin) / _COST)
        return path

    def newest_checkpoint(self, like: State) -> tuple[tuple[Path, State, dict[str, Any]] | None, list[str]]:
        """Returns the newest good checkpoint, its state and its progress, and a line for each that is passed over.

        None where there is none: the run was ended before its first.

        Raises:
            RunFolderError: there are some, and none is good.
        """
        problems: list[str] = []
        for path in reversed(self._checkpoints()):
            try:
                return (path, read_state(path, like), read_progress(path)), problems
            except ModelFileError as error:
                problems.append(f"{error} The one before it is used")
        if problems:
            raise RunFolderError(f"{self.path} has no good checkpoint. Put one back, or begin another run.")
        return None, problems

    def add_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Writes a line of metrics.

        Raises:
            OutputError: it cannot be written.
        """
        path = self.path / _METRICS_FILE
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(metrics) + "\n")
        except OSError as error:
            raise OutputError(cannot_write(path, error)) from error

    def forget_metrics_after(self, update: int) -> None:
        """Removes the lines of evaluations after `update`, which will be made again."""
        path = self.path / _METRICS_FILE
        if not path.exists():
            return
        kept = []
        for line in path.read_text("utf-8").splitlines():
            try:
                if json.loads(line)["update"] <= update:
                    kept.append(f"{line}\n")
            except (ValueError, KeyError, TypeError):
                continue  # the process ended while it wrote
        write_bytes(path, "".join(kept).encode())

    def _checkpoints(self) -> list[Path]:
        return sorted((path for path in self.path.iterdir() if _CHECKPOINT_FILE.fullmatch(path.name)), key=_number)


def _number(checkpoint: Path) -> int:
    return int(checkpoint.stem.rpartition("-")[2])


def read_run(path: Path) -> dict[str, Any]:
    """Returns what `begin` wrote down.

    Raises:
        RunFolderError: there is no run, it is damaged, or another version's.
    """
    file = path / _RUN_FILE
    try:
        run = json.loads(file.read_text("utf-8"))
        version = run["version"]
    except FileNotFoundError:
        raise RunFolderError(
            f"{path} holds no run to go on with. `charloom train SOURCE --run {path}` begins one."
        ) from None
    except OSError as error:
        raise RunFolderError(f"cannot read {file}: {error.strerror or error}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{file} is damaged ({error}). Begin another run.") from None
    if version != __version__:
        raise RunFolderError(
            f"{path} holds a run of charloom {version}, and this is {__version__}. Go on with that version, or begin "
            "another run."
        )
    return dict(run)
