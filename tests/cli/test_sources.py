"""Sources of unusual kinds and names: each is read, or refused in one line."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from charloom.cli.run import run
from charloom.cli.scoring import inputs
from charloom.settings import TextSettings
from charloom.text import iter_lines

TEXT = "the quick brown fox\njumps over the lazy dog\n" * 10
TRAIN = ("--steps", "1", "--hidden", "8", "--embedding", "4", "--json")

pytestmark = pytest.mark.skipif(os.name != "posix", reason="names and pipes of a Unix system")


@pytest.fixture
def charloom(tmp_path, monkeypatch, capsys):
    """Runs a command in a temporary folder; returns its status, output and errors."""
    monkeypatch.chdir(tmp_path)

    def charloom(*words):
        status = run(words)
        return status, *capsys.readouterr()

    return charloom


@pytest.mark.parametrize("name", ["-names.txt", os.fsdecode(b"caf\xe9.txt")])
def test_files_with_unusual_names(charloom, name):
    with open(name, "w") as file:
        file.write(TEXT)
    status, out, err = charloom("train", *TRAIN, "--", name)
    assert status == 0, err
    model = json.loads(out)["model"]
    assert Path(model).exists()
    status, out, err = charloom("score", "--json", "--", model, name)
    assert (status, json.loads(out)["characters"]) == (0, len(TEXT)), err
    if name.startswith("-"):
        status, _, err = charloom("train", name)
        assert (status, err.count("\n")) == (2, 1)


def test_an_empty_name_and_a_link_to_itself_are_refused(charloom):
    os.symlink("loop", "loop")
    for name, problem in (("", "a source's name is empty"), ("loop", "Too many levels of symbolic links")):
        for words in (("train", name), ("train", name, "--out", "m.safetensors")):
            status, out, err = charloom(*words)
            assert (status, out, err.count("\n")) == (1, "", 1)
            assert problem in err


def test_training_from_a_named_pipe(charloom):
    os.mkfifo("pipe")
    thread = threading.Thread(target=lambda: Path("pipe").write_text(TEXT))
    thread.start()
    status, out, err = charloom("train", "pipe", *TRAIN, "--report")
    thread.join()
    assert status == 0, err
    assert json.loads(out)["train_chars"] == len(TEXT) * 9 // 10
    assert Path("pipe.safetensors").exists()


def test_lines_from_a_named_pipe_are_read_as_they_arrive(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    is_answered = threading.Event()

    def write():
        with open(tmp_path / "pipe", "w") as pipe:
            pipe.write("one\n")
            pipe.flush()
            assert is_answered.wait(60)

    thread = threading.Thread(target=write)
    thread.start()
    (pipe,) = inputs([str(tmp_path / "pipe")], TextSettings())
    batches = iter_lines(pipe.chunks(), pipe.name, pipe.settings)
    assert [line.text for line in next(batches)] == ["one"]
    is_answered.set()
    assert list(batches) == []
    thread.join()


def test_standard_input_by_its_path(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "charloom", "train", "/dev/stdin", *TRAIN],
        input=TEXT,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["train_chars"] == len(TEXT) * 9 // 10


def test_a_pattern_that_matches_the_model(charloom):
    Path("a.txt").write_text(TEXT)
    for _ in range(2):
        status, out, err = charloom("train", "*", "--out", "m.safetensors", *TRAIN)
        assert status == 0, err
        assert json.loads(out)["train_chars"] == len(TEXT) * 9 // 10
    assert "left out as binary: m.safetensors" in err
    status, _, err = charloom("train", "*", "--bytes", "--out", "m.safetensors", *TRAIN)
    assert status == 1
    assert "m.safetensors" in err
