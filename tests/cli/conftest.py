import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.cli.forks import command_through

TEXT = "the quick brown fox\njumps over the lazy dog\n" * 60
QUICK = ("--hidden", "32", "--embedding", "8", "--batch-size", "4", "--sequence-length", "16")

Command = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope="session")
def forks(tmp_path_factory):
    """The address and the environment of a process that forks for each command; None without forks."""
    if not hasattr(os, "pidfd_open"):
        yield None
        return
    address = tmp_path_factory.mktemp("forks") / "s"
    environment = _environment()
    command = [sys.executable, "-m", "tests.cli.forks", str(address)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        yield address, environment


@pytest.fixture(scope="session")
def charloom(forks) -> Command:
    """Runs the command line in a separate process, as a user does."""

    def run(*arguments, stdin=None, cwd=None, file_size_limit=None, timeout=300, **environment):
        if forks is not None and file_size_limit is None and not environment and _environment() == forks[1]:
            command = command_through(forks[0])
        else:
            command = [sys.executable, "-m", "charloom"]
        command = [*command, *map(str, arguments)]
        if file_size_limit is not None:  # in blocks of 512 bytes
            command = ["sh", "-c", f'ulimit -f {file_size_limit}; exec "$@"', "sh", *command]
        return subprocess.run(
            command,
            input=stdin,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, **environment},
        )

    return run


def _environment() -> dict[str, str]:
    """The environment, without the variable that pytest changes with each test."""
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


@pytest.fixture(scope="session")
def book(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "book.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="session")
def model_file(charloom, book, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "book.safetensors"
    done = charloom("train", book, "--out", path, "--steps", 600, "--learning-rate", 0.01, *QUICK)
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="session")
def french(charloom, tmp_path_factory):
    path = tmp_path_factory.mktemp("french") / "french.txt"
    path.write_text("voix ambiguë d'un cœur\nqui préfère les jattes de kiwis\n" * 60)
    model = path.with_suffix(".safetensors")
    options = ("--steps", 600, "--learning-rate", 0.01, "--hidden", 32, "--batch-size", 4, "--sequence-length", 16)
    done = charloom("train", path, "--out", model, *options)
    assert done.returncode == 0, done.stderr
    return model


def assert_refused(done, status, *words):
    """One line on standard error, the status, nothing on standard output, no traceback."""
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line.startswith("charloom: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in lines[0]


def trained_in_time(charloom, *arguments, seconds):
    """Trains with a budget of `seconds`, or more if the machine is slow or busy; returns the command and the budget.

    No test depends on how long training takes.
    """
    for _ in range(6):
        done = charloom("train", *arguments, "--budget", f"{seconds}s", timeout=600)
        if "is too short for this text" not in done.stderr:
            return done, seconds
        seconds *= 2
    raise AssertionError(done.stderr)
