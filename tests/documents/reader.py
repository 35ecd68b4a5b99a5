"""A reader of one page, who pastes its blocks into a shell, a Python and Node."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

from tests.documents.blocks import Block

SHELL = ["bash", "-e", "-o", "pipefail"]
"""A shell in which a failure anywhere ends the page."""
TIMEOUT_SECONDS = 300
STARTING_SECONDS = 3
"""How long a program that keeps running is watched at least."""

_MARK = "--- end of block ---"
_SUFFIXES = {"sh": "sh", "python": "py", "javascript": "mjs"}
_PYTHON = f"""
import sys
names = {{"__name__": "__main__"}}
for line in iter(sys.stdin.readline, ""):
    path = line.strip()
    exec(compile(open(path, encoding="utf-8").read(), path, "exec"), names)
    print()
    print({_MARK!r}, flush=True)
"""


class Reader:
    """Keeps one shell and one Python for a page, so that a block finds what those before it made.

    Args:
        folder: where the page's files are.
        blocks: where the blocks are written, one file each.
        environment: of the programs.
    """

    def __init__(self, folder: Path, blocks: Path, environment: dict[str, str]) -> None:
        self._folder, self._blocks, self._environment = folder, blocks, environment
        self._sessions: dict[str, _Session] = {}
        self._running: list[_Running] = []

    def paste(self, block: Block) -> str:
        """Runs a block, and returns what it printed.

        Raises:
            AssertionError: if it failed, with what it printed.
        """
        path = self._blocks / f"line{block.line}.{_SUFFIXES[block.language]}"
        path.write_text(block.shortened(), "utf-8")
        if block.keeps_running:
            command = SHELL if block.language == "sh" else [block.language, "-u"]
            program = _Running([*command, str(path)], path.with_suffix(".log"), self._folder, self._environment)
            self._running.append(program)
            if "charloom serve" in block.text:
                program.wait_for("http://")
            return ""
        if block.language == "javascript":
            command = ["node", str(path)]
            done = subprocess.run(
                command,
                cwd=self._folder,
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=TIMEOUT_SECONDS,
            )
            assert done.returncode == 0, done.stdout
            return done.stdout
        return self._session(block.language).paste(path)

    def require_running(self) -> None:
        """Checks that what keeps running still does.

        Raises:
            AssertionError: if a program has ended, with what it printed.
        """
        for program in self._running:
            program.require_running()

    def close(self) -> None:
        """Ends all programs."""
        for program in (*self._sessions.values(), *self._running):
            program.close()

    def _session(self, language: str) -> "_Session":
        if language not in self._sessions:
            command = SHELL if language == "sh" else ["python", "-u", "-c", _PYTHON]
            self._sessions[language] = _Session(command, language, self._folder, self._environment)
        return self._sessions[language]


class _Session:
    """A shell or a Python that reads one block after another."""

    def __init__(self, command: list[str], language: str, folder: Path, environment: dict[str, str]) -> None:
        self._is_shell = language == "sh"
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def paste(self, path: Path) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # The block's commands are not to read the blocks after it.
        self._process.stdin.write(f". {path} </dev/null; echo; echo '{_MARK}'\n" if self._is_shell else f"{path}\n")
        self._process.stdin.flush()
        watch = threading.Timer(TIMEOUT_SECONDS, self.close)
        watch.start()
        printed = []
        try:
            for line in self._process.stdout:
                if line.rstrip() == _MARK:
                    return "".join(printed)
                printed.append(line)
        finally:
            watch.cancel()
        raise AssertionError(f"exit code {self._process.wait()}\n{''.join(printed)}")

    def close(self) -> None:
        _end(self._process)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


class _Running:
    """A program that ends only when the reader stops it."""

    def __init__(self, command: list[str], log: Path, folder: Path, environment: dict[str, str]) -> None:
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._began = time.monotonic()

    def wait_for(self, text: str) -> None:
        """Waits until the program has printed `text`."""
        while text not in self._log.read_text("utf-8", "replace"):
            assert self._process.poll() is None, self._log.read_text("utf-8", "replace")
            assert time.monotonic() < self._began + TIMEOUT_SECONDS, f"did not print {text!r}"
            time.sleep(0.05)

    def require_running(self) -> None:
        time.sleep(max(0.0, self._began + STARTING_SECONDS - time.monotonic()))
        assert self._process.poll() is None, self._log.read_text("utf-8", "replace")

    def close(self) -> None:
        _end(self._process)


def _end(process: "subprocess.Popen[str] | subprocess.Popen[bytes]") -> None:
    """Ends a program and what it started, even if the program itself has ended."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
