"""`metrics.jsonl`: a JSON object for each evaluation, one per line, for plots and other programs."""

import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Annotated, Any

import msgspec
from msgspec import Meta, Struct

from charloom.artifacts import atomic_write, cannot_write, convert_json, open_without_waiting, parse_json
from charloom.errors import OutputError, RunFolderError
from charloom.settings import MAX_COUNT
from charloom.units import finite_or_none

METRICS_FILE = "metrics.jsonl"
_MAX_LINE_BYTES = 65_536


class _Metrics(Struct, forbid_unknown_fields=True):
    step: Annotated[int, Meta(ge=1, le=MAX_COUNT)]
    train_nats_per_char: float | None
    validation_nats_per_char: float | None
    epoch: float
    validation_bits_per_char: float | None
    improved: bool


_DECODER = msgspec.json.Decoder(_Metrics)


class MetricsFile:
    """The file of a run's metrics."""

    def __init__(self, path: Path):
        self.path = path

    def add(self, metrics: Mapping[str, Any]) -> None:
        """Writes a line. NaN and infinity become null, because JSON cannot express them.

        Raises:
            OutputError: the line cannot be written.
        """
        values = {name: finite_or_none(value) if isinstance(value, float) else value for name, value in metrics.items()}
        try:
            with open(self.path, "ab", opener=open_without_waiting) as file:
                file.write(json.dumps(values, allow_nan=False).encode() + b"\n")
        except OSError as error:
            raise OutputError(cannot_write(self.path, error)) from error

    def remove_after(self, step: int) -> list[str]:
        """Removes damaged lines and the lines of evaluations after `step`, which the resumed run will repeat.

        Returns a notice about damaged lines. An incomplete last line does not count as damaged, because the process may
        have ended while writing it.

        Raises:
            RunFolderError: the file cannot be read.
            OutputError: the file cannot be written.
        """
        problem, damaged, last = "", 0, 0
        try:
            with open(self.path, "rb", opener=open_without_waiting) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise OSError("it is not a regular file")
                with atomic_write(self.path, "run") as kept:
                    for number, line in enumerate(_lines(file), 1):
                        found = _step_of(line)
                        if found is not None and last < found:
                            last = found
                            kept.write(line if found <= step else b"")
                        elif line.endswith(b"\n"):
                            damaged += 1
                            problem = problem or _problem_of(line, f"{self.path}, line {number:,}", last)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RunFolderError(f"cannot read {self.path}: {error.strerror or error}. Move it away.") from error
        if not damaged:
            return []
        return [f"{problem} Removing {damaged:,} damaged {'line' if damaged == 1 else 'lines'} from the metrics"]


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """Yields lines with their ends. A line that is too long to be charloom's is shortened."""
    while line := file.readline(_MAX_LINE_BYTES):
        end = line
        while len(end) == _MAX_LINE_BYTES and not end.endswith(b"\n"):
            end = file.readline(_MAX_LINE_BYTES)
        yield line if end is line else line + b"\n" * end.endswith(b"\n")


def _step_of(line: bytes) -> int | None:
    try:
        return _DECODER.decode(line).step
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _problem_of(line: bytes, where: str, last: int) -> str:
    """Returns what is wrong with a line, because `_DECODER` does not say what it found."""
    try:
        metrics = convert_json(parse_json(line, where, RunFolderError), _Metrics, where, RunFolderError)
    except RunFolderError as error:
        return str(error)
    return f"{where}: step is {metrics.step:,}, expected a step after {last:,}."
