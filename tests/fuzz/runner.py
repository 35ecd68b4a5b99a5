"""Runs cases in worker processes, and judges how they end. Anything but a result or a clear refusal is a fault."""

import json
import os
import re
import select
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PATIENCE = 60.0
"""Seconds after which a case that does not react to Ctrl-C counts as hanging."""
_REFUSED = (1, 2)
_STOPPED = (130,)
_MAX_LINE = 2_000
_FIRST_SECONDS = 60.0
"""Additional seconds for a worker's first case, which compiles. Without them, no worker survives on a busy machine."""
MIN_CASES = 5
"""Minimum number of attempts per part, however little time it has."""


@dataclass
class Tally:
    """The outcomes of the cases of one part.

    Attributes:
        results: number of cases that gave a result.
        refused: number of cases that were refused in one line, or by a 4xx status.
        stopped: number of cases that took long and were ended by a signal, or that disconnected before a response.
        faults: a description of each other case.
    """

    name: str
    results: int = 0
    refused: int = 0
    stopped: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def cases(self) -> int:
        """Number of cases so far."""
        return self.results + self.refused + self.stopped + len(self.faults)

    def has_next(self, until: float, max_cases: int, min_cases: int = MIN_CASES) -> bool:
        """Returns whether to run another case: fewer than `max_cases` have run, and there is time or too few have."""
        return self.cases < max_cases and (self.cases < min_cases or time.monotonic() < until)

    def fault(self, what: str) -> None:
        """Counts a fault."""
        self.faults.append(what[:4_000])

    def judge(self, case: str, arguments: Sequence[str], outcome: "Outcome") -> None:
        """Counts a command line by its outcome. `case` describes its input."""
        if problem := problem_of(arguments, outcome):
            self.fault(f"{problem}: {case}\n    charloom {shlex.join(arguments)}\n{outcome.as_text()}")
        elif outcome.status == 0:
            self.results += 1
        elif outcome.status in _REFUSED:
            self.refused += 1
        else:
            self.stopped += 1


@dataclass(frozen=True)
class Outcome:
    """How a command line ended.

    Attributes:
        status: its exit status; None if it raised, died or hung, as `err` describes.
    """

    status: int | None
    out: str
    err: str

    def as_text(self) -> str:
        """Returns the status and what was printed, indented."""
        return f"    status {self.status}\n" + "\n".join(f"    | {line[:300]}" for line in self.err.splitlines()[-12:])


def problem_of(arguments: Sequence[str], outcome: Outcome) -> str | None:
    """Returns what is wrong with an outcome; None if nothing is."""
    if outcome.status is None or "Traceback" in outcome.err or "Exception ignored" in outcome.err:
        return "raised, died or hung"
    if outcome.status not in (0, *_REFUSED, *_STOPPED):
        return f"ended with status {outcome.status}"
    lines = outcome.err.splitlines()
    if any(not line.isprintable() for line in lines):
        return "printed control characters"
    if any(len(line) > _MAX_LINE for line in lines):
        return "printed an endless line"
    problems = [line for line in lines if line.startswith("charloom: ")]
    if outcome.status in _REFUSED and len(problems) != 1 and not (outcome.status == 1 and _explained(outcome)):
        return f"printed {len(problems)} lines of error"
    if outcome.status == 0 and "--json" in arguments and not _is_json(outcome.out):
        return "printed something that is not JSON"
    if re.search(r"\bnan\b", outcome.out) and arguments[0] in ("score", "classify"):
        return "printed NaN"
    return None


def _is_json(out: str) -> bool:
    """Returns whether each line is JSON, without NaN and infinities."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        for line in out.splitlines():
            json.loads(line, parse_constant=refuse)
    except ValueError:
        return False
    return True


def _explained(outcome: Outcome) -> bool:
    """Returns whether a result with status 1 explains itself: the loss diverged, or the texts ran out."""
    return "diverged" in outcome.out + outcome.err or "kept " in outcome.err


class Worker:
    """A process that runs command lines. It is replaced when it dies or hangs."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._errors: Any = None
        self._is_new = True  # it has not completed a case yet

    def run(self, arguments: Sequence[str], folder: Path, stdin: str = "", seconds: float = 5.0) -> Outcome:
        """Returns the outcome of a command line in `folder`."""
        process = self._started()
        if self._is_new:
            seconds += _FIRST_SECONDS
        assert process.stdin is not None
        assert process.stdout is not None
        case = {"arguments": list(arguments), "folder": str(folder), "stdin": stdin, "seconds": seconds}
        try:
            process.stdin.write(json.dumps(case) + "\n")
            process.stdin.flush()
            ready, _, _ = select.select([process.stdout], [], [], seconds + _PATIENCE)
            answer = process.stdout.readline() if ready else None
        except BrokenPipeError:
            answer = ""
        if answer:
            self._is_new = False
            return Outcome(**json.loads(answer))
        hung = answer is None
        if hung:
            process.kill()
        status = process.wait()
        self._process = None
        if not hung and status in _STOPPED:  # Ctrl-C before the command could handle it
            return Outcome(status, "", "")
        self._errors.seek(0)
        stderr = self._errors.read().decode("utf-8", "replace")
        return Outcome(None, "", f"{stderr}\n{'hung' if hung else f'died with {status}'}")

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _started(self) -> "subprocess.Popen[str]":
        if self._process is None or self._process.poll() is not None:
            self._is_new = True
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # read after the process has outcome
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.fuzz.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                env={**os.environ, "PYTHONPATH": os.getcwd(), "PYTHONFAULTHANDLER": "1"},
            )
        return self._process
