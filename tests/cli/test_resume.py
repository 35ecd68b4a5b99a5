"""`charloom train --run` and `--resume`, in separate processes that are stopped and killed."""

import hashlib
import json
import os
import select
import signal
import struct
import subprocess
import sys
import time

import pytest
from tensorboardX.proto.event_pb2 import Event

from charloom.artifacts import lock_folder
from charloom.model import load
from tests.cli.conftest import QUICK, TEXT, assert_refused
from tests.kills import kill

# Tests may run under nohup, which ignores SIGHUP.
_PROGRAM = """
import signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from charloom.cli import main
main(sys.argv[1:])
"""


def started(folder, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, "train", *map(str, arguments)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path, process):
    for _ in range(600):
        if path.exists() or process.poll() is not None:
            return
        time.sleep(0.1)
    raise AssertionError(f"no {path}")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_leaves_a_checkpoint_to_resume_from(charloom, book, tmp_path, number, status):
    process = started(tmp_path, book, *QUICK, "--steps", 500_000, "--run", "run", "--out", "m.safetensors")
    try:
        wait_for(tmp_path / "m.safetensors", process)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == status, err
    assert "Resume with: charloom train --resume run" in err
    assert "Traceback" not in err
    assert load(tmp_path / "m.safetensors").training["kept_step"] > 0
    assert list((tmp_path / "run").glob("checkpoint-*.safetensors"))


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="there are no terminals to close")
def test_a_closed_terminal_leaves_a_checkpoint_and_the_model(book, tmp_path):
    master, terminal = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, "train", str(book), *map(str, QUICK), "--steps", "500000", "--run", "run"],
        cwd=tmp_path,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    try:
        for _ in range(6_000):
            if (tmp_path / "book.safetensors").exists():
                break
            if select.select([master], [], [], 0.01)[0]:  # a full terminal would block the run
                os.read(master, 4096)
        os.close(master)  # from here on printing fails
        process.send_signal(signal.SIGHUP)
        assert process.wait(60) > 0
    finally:
        process.kill()
    assert list((tmp_path / "run").glob("checkpoint-*.safetensors"))
    assert "validation_nats_per_char" in load(tmp_path / "book.safetensors").training  # added at the very end


def test_a_text_from_a_pipe_is_kept_for_resuming(charloom, tmp_path):
    done = charloom("train", "-", *QUICK, "--steps", 30, "--run", "run", stdin=TEXT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    model = (tmp_path / "model.safetensors").read_bytes()
    for checkpoint in (tmp_path / "run").glob("checkpoint-*"):
        checkpoint.unlink()
    again = charloom("train", "--resume", tmp_path / "run", cwd=tmp_path.parent)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "model.safetensors").read_bytes() == model


def test_a_run_that_cannot_be_resumed_is_refused_with_one_line(charloom, book, tmp_path):
    assert charloom("train", book, *QUICK, "--steps", 2, "--run", "run", cwd=tmp_path).returncode == 0
    differs = charloom("train", "--resume", "run", "--hidden", 48, "--seed", 1, cwd=tmp_path)
    assert_refused(differs, 1, "--hidden is 32 there, 48 here; --seed is 0 there, 1 here")
    differs = charloom("train", "--resume", "run", "--clip-norm", 2, "--state-reset-probability", 0.5, cwd=tmp_path)
    assert_refused(differs, 1, "--clip-norm is 1.0 there, 2.0 here; --state-reset-probability is 0.01 there, 0.5 here")
    differs = charloom("train", "--resume", "run", "--schedule", "constant", "--warmup-ratio", 0, cwd=tmp_path)
    assert_refused(differs, 1, "--schedule is cosine there, constant here; --warmup-ratio is 0.05 there, 0.0 here")
    (tmp_path / "other.txt").write_text(TEXT[1:])
    other = charloom("train", "other.txt", "--resume", "run", cwd=tmp_path)
    digests = [hashlib.sha256(text.encode()).hexdigest()[:12] for text in (TEXT, TEXT[1:])]
    assert_refused(other, 1, *digests, "charloom train --resume run TEXT")
    assert charloom("train", book, "--resume", "run", "--hidden", 32, cwd=tmp_path).returncode == 0
    assert_refused(charloom("train", book, "--run", "run", cwd=tmp_path), 1, "run already holds a run")
    assert_refused(charloom("train", "--resume", "none", cwd=tmp_path), 1, "none does not hold a run to resume")
    assert_refused(charloom("train", "--resume", "run", "--run", "b", cwd=tmp_path), 2, "give only one of them")
    assert_refused(charloom("train", cwd=tmp_path), 2, "missing argument 'SOURCE...'")
    assert_refused(charloom("train", book, "--patience", 0), 2, "--patience must be a whole number from 1")


def test_kills_at_random_moments_lose_nothing():
    summary = kill(3, steps=8_000)
    assert summary.startswith("3 kills: no model lost, no resume that differs")
    assert "3 × 2 checkpoints" in summary or "× 1 checkpoints" in summary


def test_event_files_match_the_metrics(charloom, book, tmp_path):
    done = charloom("train", book, *QUICK, "--steps", 20, "--run", "run", "--tensorboard", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "run" / "tensorboard").iterdir()
    plotted = {}
    data = path.read_bytes()
    while data:  # each entry: length, its checksum, an event, its checksum
        (length,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]
        for value in event.summary.value:
            plotted.setdefault(value.tag, {})[event.step] = value.simple_value
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert plotted["validation/bits_per_char"] == {
        line["step"]: pytest.approx(line["validation_bits_per_char"]) for line in metrics
    }
    assert max(plotted["training/bits_per_char"]) == 20
    assert_refused(charloom("train", book, "--tensorboard"), 2, "--tensorboard writes into a run's folder")


def test_ctrl_c_while_waiting_for_the_cache_ends_at_once(book, tmp_path):
    first = started(tmp_path, book, *QUICK, "--steps", 1, "--cache", "cache")
    first.communicate(timeout=60)
    assert first.returncode == 0
    (entry,) = (tmp_path / "cache").iterdir()
    with lock_folder(entry):  # as if another process were encoding the text
        process = started(tmp_path, book, *QUICK, "--steps", 1, "--cache", "cache")
        try:
            assert "waiting for another charloom process" in process.stderr.readline()
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "Traceback" not in err
