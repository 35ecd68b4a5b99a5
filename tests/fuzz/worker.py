"""A process that runs command lines one after another, as `charloom` would, without loading JAX for each.

Reads one case per line from standard input, `{"arguments": [...], "folder": ..., "stdin": ..., "seconds": ...}`, and
writes one line per case. A case that takes longer than `seconds` gets a Ctrl-C.
"""

import contextlib
import io
import json
import os
import signal
import sys
import tempfile
import traceback
from types import FrameType
from typing import Any


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGINT)


def outcome(case: dict[str, Any]) -> dict[str, Any]:
    """Returns what a case printed, and its exit status."""
    from charloom.cli.run import run
    from charloom.cli.streams import open_streams

    os.chdir(case["folder"])
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(case["stdin"].encode("latin-1"))
        given.seek(0)
        for file, number in ((given, 0), (out, 1), (err, 2)):
            os.dup2(file.fileno(), number)
        sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False))
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False))
        open_streams()
        signal.signal(signal.SIGALRM, _interrupt)
        signal.setitimer(signal.ITIMER_REAL, case["seconds"])
        status: int | None = None
        try:
            status = run(case["arguments"])
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError):
                    stream.flush()
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "backslashreplace"))
    return {"status": status, "out": texts[0], "err": texts[1]}


def main() -> None:
    """Runs cases until there are no more."""
    cases, answers = os.fdopen(os.dup(0), "r"), os.fdopen(os.dup(1), "w")
    from charloom.cli.interrupt import watch_signals

    watch_signals()
    import charloom.report
    import charloom.runs
    import charloom.studies  # noqa: F401  # loaded before the first case, because all cases need them

    for line in cases:
        answers.write(json.dumps(outcome(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
