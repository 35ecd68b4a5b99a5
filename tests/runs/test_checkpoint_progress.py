"""What checkpoints say of their runs: types, bounds, fields that must agree, and whose they are."""

import copy
import itertools
import json
import os
import shutil

import numpy as np
import pytest
from safetensors.numpy import load as tensors_of

import charloom as cl
from charloom.artifacts import write_tensor_file
from charloom.errors import ModelFileError, RunFolderError
from charloom.runs import RunSettings, run_training, settings_of_run
from charloom.runs.checkpoint import read_progress
from charloom.runs.checkpoint_progress import checked_progress
from charloom.settings import NetworkSettings, TrainingSettings
from charloom.training import Notice, Pace, follow

TEXT = "a man a plan a canal panama\n" * 30
NETWORK = NetworkSettings(hidden=8, embedding=4)
TRAINING = TrainingSettings(lanes=4, unroll_length=16, updates=60)
PACE = Pace(((0, 60),))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A run that is done, its text and its model beside it."""
    home = tmp_path_factory.mktemp("home")
    (home / "book.txt").write_text(TEXT)
    settings = RunSettings(
        sources=(home / "book.txt",),
        out=home / "m.safetensors",
        folder=home / "run",
        network=NETWORK,
        training=TRAINING,
    )
    # Its first checkpoint is of update 1, its second of the end.
    asked = itertools.count(1)
    follow(run_training(settings, lambda: next(asked) == 1), lambda event: None)
    cl.resume(home / "run")
    return home


@pytest.fixture
def folder(home, tmp_path):
    """A copy of the run's folder."""
    return shutil.copytree(home / "run", tmp_path / "run")


@pytest.fixture(scope="module")
def progress(home):
    return read_progress(sorted((home / "run").glob("checkpoint-*"))[-1])


def newest(folder):
    return sorted(folder.glob("checkpoint-*"))[-1]


def rewritten(path, change):
    """Changes a checkpoint's progress and leaves its tensors as they are."""
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    metadata = json.loads(header["__metadata__"]["charloom"])
    metadata["progress"] = change(metadata["progress"])
    write_tensor_file(path, tensors_of(data), metadata)


def test_what_was_written_is_good(progress, tmp_path):
    got = checked_progress(progress, tmp_path, progress["run"], PACE, False)
    assert json.loads(json.dumps(got.as_json())) == progress
    assert got.counts.update == 60


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("history", ..., "history is missing"),
        ("history", None, "history is None, expected a list"),
        ("history", {}, r"history is \{\}, expected a list"),
        ("history.0", [], r"history\[0\] is \[\], expected an object"),
        ("history.0.update", None, r"history\[0\].update is None, expected an integer"),
        ("history.0.update", 0, r"history\[0\].update is 0, expected an integer >= 1"),
        ("history.0.update", 10**6, "history is not sorted, expected ascending updates|counts.evaluated"),
        ("history.0.validation_nats_per_char", "1", r"history\[0\].validation_nats_per_char is '1', expected"),
        ("history.0.validation_nats_per_char", np.nan, r"history\[0\].validation_nats_per_char is nan"),
        ("history", [], "counts.evaluated is 60, expected 0 as in history"),
        ("counts", [], r"counts is \[\], expected an object"),
        ("counts.update", np.nan, "counts.update is nan, expected an integer"),
        ("counts.update", 61, "counts.update is 61, expected a part of those planned"),
        ("counts.update", -1, "counts.update is -1"),
        ("counts.update", 59, "counts.nats_count is 0, expected -1"),
        ("counts.update", "60", "counts.update is '60', expected an integer"),
        ("counts.update", True, "counts.update is True, expected an integer"),
        ("counts.evaluated", 40, "counts.evaluated is 40, expected 60 as in history"),
        ("counts.evaluated", 2**62, "counts.evaluated is 4611686018427387904"),
        ("counts.nats_count", 5, "counts.nats_count is 5, expected 0"),
        ("counts.nats_sum", np.inf, "counts.nats_sum is inf, expected a finite number"),
        ("counts.nats_sum", np.nan, "counts.nats_sum is nan, expected a finite number"),
        ("counts.lowest", None, "counts.lowest is None"),
        ("counts.lowest", np.nan, "counts.lowest is nan"),
        ("counts.stale", -1, "counts.stale is -1"),
        ("counts.stale", 10**9, "counts.stale is 1000000000"),
        ("counts.retries", 4, "counts.retries is 4, expected at most 3"),
        ("counts.pace", {"plans": []}, "counts.pace is not the plan of 60 updates"),
        ("counts.pace", {"plans": [[0, 2**31]]}, "counts.pace is not the plan of 60 updates"),
        ("counts.pace", {"plans": 5}, "counts.pace.plans is 5, expected a list"),
        ("counts.pace", {"plans": [[0]]}, r"counts.pace.plans\[0\] is \[0\]"),
        ("counts.more", 1, "counts.more is not a field"),
        ("best", [], r"best is \[\], expected an object or null"),
        ("best", None, "counts.lowest is"),
        ("best.update", 7, "best.update is 7, expected one of history"),
        ("best.epoch", np.inf, "best.epoch is inf"),
        ("samples", None, "samples is None, expected a list"),
        ("samples.0.text", 5, r"samples\[0\].text is 5, expected a string"),
        ("spent", -1, "spent is -1"),
        ("spent", np.nan, "spent is nan"),
        ("spent", np.inf, "spent is inf"),
        ("run", None, "run is None, expected a string"),
        ("run", "ab" * 32, "is a checkpoint of another run"),
        ("more", 1, "more is not a field"),
    ],
)
def test_what_was_not_written_so_is_refused_with_its_field(progress, tmp_path, path, value, told):
    values = content = copy.deepcopy(progress)
    *parents, name = (int(part) if part.isdigit() else part for part in path.split("."))
    for parent in parents:
        content = content[parent]
    if value is ...:
        del content[name]
    else:
        content[name] = value
    with pytest.raises(ModelFileError, match=told) as caught:
        checked_progress(values, tmp_path / "checkpoint-000002.safetensors", progress["run"], PACE, False)
    assert "checkpoint-000002.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "counts",
    [
        {"retries": 1},
        {"retries": 3},
        {"stale": 1},
        {"nats_sum": 1e300},
        {"nats_sum": -1e300},
        {"pace": {"plans": [[0, 60], [10, 2**31 - 1]]}},
        {"update": 0, "evaluated": 0, "lowest": None},
        {"update": 59, "evaluated": 0, "lowest": None, "nats_count": 59},
    ],
)
def test_what_is_within_its_bounds_is_good(progress, tmp_path, counts):
    values = progress | {"counts": progress["counts"] | counts}
    if counts.get("evaluated") == 0:
        values |= {"history": [], "best": None}
    got = checked_progress(values, tmp_path, progress["run"], PACE, has_budget=True)
    assert json.loads(json.dumps(got.as_json())) == values


@pytest.mark.parametrize("values", [None, [], "text", 5, {}, {"run": 5}])
def test_what_is_not_such_an_object_is_refused(progress, tmp_path, values):
    with pytest.raises(ModelFileError):
        checked_progress(values, tmp_path, progress["run"], PACE, False)


@pytest.mark.parametrize(
    ("plans", "told"),
    [
        ([], "does not ascend"),
        ([[1, 60]], "does not ascend"),
        ([[0, 80], [0, 60]], "does not ascend"),
        ([[0, 80], [40, 90], [20, 60]], "does not ascend"),
        ([[0, 0]], "ends before it begins"),
        ([[0, 2**31]], "ends before it begins"),
        ([[0, 30], [40, 60]], "after the one before it ended"),
        ([[0, 59]], "counts.update is 60"),
        ([[0, 900], [30, 60]], None),
    ],
)
def test_a_run_with_a_budget_may_have_been_planned_again(progress, tmp_path, plans, told):
    values = progress | {"counts": progress["counts"] | {"pace": {"plans": plans}}}
    if told is None:
        assert checked_progress(values, tmp_path, progress["run"], PACE, True).counts.pace.updates == 60
        return
    with pytest.raises(ModelFileError, match=told):
        checked_progress(values, tmp_path, progress["run"], PACE, True)


def resumed(folder):
    """Resumes the run; returns its notices."""
    notices = []
    cl.resume(folder, lambda event: notices.append(event.text) if isinstance(event, Notice) else None)
    return notices


def test_a_checkpoint_that_was_changed_is_passed_over(home, folder, tmp_path):
    rewritten(newest(folder), lambda progress: progress | {"history": None})
    wanted = (home / "m.safetensors").read_bytes()
    shutil.copy(home / "book.txt", tmp_path / "book.txt")
    notices = resumed(folder)
    assert any("history is None, expected a list. The one before it is used" in text for text in notices)
    assert any("going on from checkpoint-000001.safetensors: update 1" in text for text in notices)
    assert (tmp_path / "m.safetensors").read_bytes() == wanted


def test_tensors_that_were_changed_are_damaged(home, folder, tmp_path):
    data = bytearray(newest(folder).read_bytes())
    data[-1] ^= 1
    newest(folder).write_bytes(data)
    shutil.copy(home / "book.txt", tmp_path / "book.txt")
    notices = resumed(folder)
    assert any("its tensors are not those that were written. The one before it is used" in text for text in notices)


def test_a_checkpoint_of_another_seed_and_text_with_the_same_shapes_is_not_resumed(folder, tmp_path):
    (tmp_path / "book.txt").write_text(TEXT)
    (tmp_path / "other.txt").write_text(TEXT[::-1])
    other = RunSettings(
        sources=(tmp_path / "other.txt",),
        folder=tmp_path / "other",
        network=NETWORK,
        training=TrainingSettings(lanes=4, unroll_length=16, updates=60, seed=1),
    )
    asked = itertools.count(1)
    follow(run_training(other, lambda: next(asked) == 1), lambda event: None)
    shutil.copy(newest(tmp_path / "other"), folder / "checkpoint-000009.safetensors")
    notices = resumed(folder)
    assert any("checkpoint-000009.safetensors is a checkpoint of another run" in text for text in notices)
    assert any("going on from checkpoint-000002.safetensors: update 60" in text for text in notices)
    for checkpoint in folder.glob("checkpoint-*"):
        checkpoint.unlink()
    shutil.copy(newest(tmp_path / "other"), folder / "checkpoint-000009.safetensors")
    with pytest.raises(RunFolderError, match=r"no good checkpoint\. .* of another run .* Put one back, or begin"):
        resumed(folder)


def test_thousands_of_checkpoints_and_what_only_has_the_name_of_one(home, folder, tmp_path):
    shutil.copy(home / "book.txt", tmp_path / "book.txt")
    for number in range(10, 3_001):
        (folder / f"checkpoint-{number:06d}.safetensors").write_bytes(b"not one")
    (folder / "checkpoint-005000.safetensors").mkdir()
    os.mkfifo(folder / "checkpoint-005001.safetensors")
    os.symlink("/dev/zero", folder / "checkpoint-005002.safetensors")
    os.symlink("nowhere", folder / "checkpoint-005003.safetensors")
    (folder / f"checkpoint-{'9' * 200}.safetensors").write_bytes(b"")
    notices = resumed(folder)
    assert sum("The one before it is used" in text for text in notices) == 3
    assert "2,993 more checkpoints before it are passed over" in notices
    assert any("going on from checkpoint-000002.safetensors: update 60" in text for text in notices)


def test_the_digest_of_the_checkpoints_is_that_of_the_run(folder, progress):
    assert json.loads((folder / "run.json").read_text())["digest"] == progress["run"]
    assert settings_of_run(folder).training == TRAINING
