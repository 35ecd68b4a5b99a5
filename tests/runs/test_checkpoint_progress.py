"""The progress in checkpoints: types, bounds, fields that must agree, and the run they belong to."""

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
from charloom.training import Notice, StepPlan, follow

TEXT = "a man a plan a canal panama\n" * 30
NETWORK = NetworkSettings(hidden=8, embedding=4)
TRAINING = TrainingSettings(precision="float32", batch_size=4, sequence_length=16, steps=60)
STEP_PLAN = StepPlan(((0, 60),))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A finished run, next to its text and its model."""
    home = tmp_path_factory.mktemp("home")
    (home / "book.txt").write_text(TEXT)
    settings = RunSettings(
        sources=(home / "book.txt",),
        out=home / "m.safetensors",
        folder=home / "run",
        network=NETWORK,
        training=TRAINING,
    )
    # The first checkpoint is of step 1, the second of the end.
    calls = itertools.count(1)
    follow(run_training(settings, lambda: next(calls) == 1), lambda event: None)
    cl.resume(home / "run")
    return home


@pytest.fixture
def folder(home, tmp_path):
    """A copy of the run folder."""
    return shutil.copytree(home / "run", tmp_path / "run")


@pytest.fixture(scope="module")
def progress(home):
    return read_progress(sorted((home / "run").glob("checkpoint-*"))[-1])


def newest(folder):
    return sorted(folder.glob("checkpoint-*"))[-1]


def rewritten(path, change):
    """Changes a checkpoint's progress, but not its tensors."""
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    metadata = json.loads(header["__metadata__"]["charloom"])
    metadata["progress"] = change(metadata["progress"])
    write_tensor_file(path, tensors_of(data), metadata)


def test_written_progress_is_accepted(progress, tmp_path):
    got = checked_progress(progress, tmp_path, progress["run"], STEP_PLAN, False)
    assert json.loads(json.dumps(got.as_json())) == progress
    assert got.loop.step == 60


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("history", ..., "history is missing"),
        ("history", None, "history is None, expected a list"),
        ("history", {}, r"history is \{\}, expected a list"),
        ("history.0", [], r"history\[0\] is \[\], expected an object"),
        ("history.0.step", None, r"history\[0\].step is None, expected an integer"),
        ("history.0.step", 0, r"history\[0\].step is 0, expected an integer >= 1"),
        ("history.0.step", 10**6, "history is not sorted, expected ascending steps|loop.evaluated"),
        ("history.0.validation_nats_per_char", "1", r"history\[0\].validation_nats_per_char is '1', expected"),
        ("history.0.validation_nats_per_char", np.nan, r"history\[0\].validation_nats_per_char is nan"),
        ("history", [], "loop.evaluated is 60, expected 0 as in history"),
        ("loop", [], r"loop is \[\], expected an object"),
        ("loop.step", np.nan, "loop.step is nan, expected an integer"),
        ("loop.step", 61, "loop.step is 61, expected at most 60"),
        ("loop.step", -1, "loop.step is -1"),
        ("loop.step", 59, "loop.nats_count is 0, expected -1"),
        ("loop.step", "60", "loop.step is '60', expected an integer"),
        ("loop.step", True, "loop.step is True, expected an integer"),
        ("loop.evaluated", 40, "loop.evaluated is 40, expected 60 as in history"),
        ("loop.evaluated", 2**62, "loop.evaluated is 4611686018427387904"),
        ("loop.nats_count", 5, "loop.nats_count is 5, expected 0"),
        ("loop.nats_sum", np.inf, "loop.nats_sum is inf, expected a finite number"),
        ("loop.nats_sum", np.nan, "loop.nats_sum is nan, expected a finite number"),
        ("loop.lowest", None, "loop.lowest is None"),
        ("loop.lowest", np.nan, "loop.lowest is nan"),
        ("loop.stale", -1, "loop.stale is -1"),
        ("loop.stale", 10**9, "loop.stale is 1000000000"),
        ("loop.retries", 4, "loop.retries is 4, expected at most 3"),
        ("loop.step_plan", {"plans": []}, "loop.step_plan is not the plan of 60 steps"),
        ("loop.step_plan", {"plans": [[0, 2**31]]}, "loop.step_plan is not the plan of 60 steps"),
        ("loop.step_plan", {"plans": 5}, "loop.step_plan.plans is 5, expected a list"),
        ("loop.step_plan", {"plans": [[0]]}, r"loop.step_plan.plans\[0\] is \[0\]"),
        ("loop.more", 1, "loop.more is not a field"),
        ("best", [], r"best is \[\], expected an object or null"),
        ("best", None, "loop.lowest is"),
        ("best.step", 7, "best.step is 7, expected a step in history"),
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
def test_wrong_values_are_refused_with_the_field(progress, tmp_path, path, value, message):
    values = content = copy.deepcopy(progress)
    *parents, name = (int(part) if part.isdigit() else part for part in path.split("."))
    for parent in parents:
        content = content[parent]
    if value is ...:
        del content[name]
    else:
        content[name] = value
    with pytest.raises(ModelFileError, match=message) as caught:
        checked_progress(values, tmp_path / "checkpoint-000002.safetensors", progress["run"], STEP_PLAN, False)
    assert "checkpoint-000002.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "loop",
    [
        {"retries": 1},
        {"retries": 3},
        {"stale": 1},
        {"nats_sum": 1e300},
        {"nats_sum": -1e300},
        {"step_plan": {"plans": [[0, 60], [10, 2**31 - 1]]}},
        {"step": 0, "evaluated": 0, "lowest": None},
        {"step": 59, "evaluated": 0, "lowest": None, "nats_count": 59},
    ],
)
def test_values_within_their_bounds_are_accepted(progress, tmp_path, loop):
    values = progress | {"loop": progress["loop"] | loop}
    if loop.get("evaluated") == 0:
        values |= {"history": [], "best": None}
    got = checked_progress(values, tmp_path, progress["run"], STEP_PLAN, has_budget=True)
    assert json.loads(json.dumps(got.as_json())) == values


@pytest.mark.parametrize("values", [None, [], "text", 5, {}, {"run": 5}])
def test_other_values_are_refused(progress, tmp_path, values):
    with pytest.raises(ModelFileError):
        checked_progress(values, tmp_path, progress["run"], STEP_PLAN, False)


@pytest.mark.parametrize(
    ("plans", "message"),
    [
        ([], "does not ascend"),
        ([[1, 60]], "does not ascend"),
        ([[0, 80], [0, 60]], "does not ascend"),
        ([[0, 80], [40, 90], [20, 60]], "does not ascend"),
        ([[0, 0]], "ends before it starts"),
        ([[0, 2**31]], "ends before it starts"),
        ([[0, 30], [40, 60]], "after the previous one ended"),
        ([[0, 59]], "loop.step is 60"),
        ([[0, 900], [30, 60]], None),
    ],
)
def test_a_run_with_a_budget_may_have_changed_its_plan(progress, tmp_path, plans, message):
    values = progress | {"loop": progress["loop"] | {"step_plan": {"plans": plans}}}
    if message is None:
        assert checked_progress(values, tmp_path, progress["run"], STEP_PLAN, True).loop.step_plan.steps == 60
        return
    with pytest.raises(ModelFileError, match=message):
        checked_progress(values, tmp_path, progress["run"], STEP_PLAN, True)


def resumed(folder):
    """Resumes the run; returns its notices."""
    notices = []
    cl.resume(folder, lambda event: notices.append(event.text) if isinstance(event, Notice) else None)
    return notices


def test_a_changed_checkpoint_is_skipped(home, folder, tmp_path):
    rewritten(newest(folder), lambda progress: progress | {"history": None})
    wanted = (home / "m.safetensors").read_bytes()
    shutil.copy(home / "book.txt", tmp_path / "book.txt")
    notices = resumed(folder)
    assert any("history is None, expected a list. Trying the checkpoint before it" in text for text in notices)
    assert any("resuming from checkpoint-000001.safetensors: step 1" in text for text in notices)
    assert (tmp_path / "m.safetensors").read_bytes() == wanted


def test_changed_tensors_are_reported_as_damaged(home, folder, tmp_path):
    data = bytearray(newest(folder).read_bytes())
    data[-1] ^= 1
    newest(folder).write_bytes(data)
    shutil.copy(home / "book.txt", tmp_path / "book.txt")
    notices = resumed(folder)
    assert any("its tensors do not match their digest. Trying the checkpoint before it" in text for text in notices)


def test_a_checkpoint_of_another_seed_and_text_with_the_same_shapes_is_not_resumed(folder, tmp_path):
    (tmp_path / "book.txt").write_text(TEXT)
    (tmp_path / "other.txt").write_text(TEXT[::-1])
    other = RunSettings(
        sources=(tmp_path / "other.txt",),
        folder=tmp_path / "other",
        network=NETWORK,
        training=TrainingSettings(batch_size=4, sequence_length=16, steps=60, seed=1),
    )
    calls = itertools.count(1)
    follow(run_training(other, lambda: next(calls) == 1), lambda event: None)
    shutil.copy(newest(tmp_path / "other"), folder / "checkpoint-000009.safetensors")
    notices = resumed(folder)
    assert any("checkpoint-000009.safetensors is a checkpoint of another run" in text for text in notices)
    assert any("resuming from checkpoint-000002.safetensors: step 60" in text for text in notices)
    for checkpoint in folder.glob("checkpoint-*"):
        checkpoint.unlink()
    shutil.copy(newest(tmp_path / "other"), folder / "checkpoint-000009.safetensors")
    with pytest.raises(
        RunFolderError, match=r"not hold a good checkpoint\. .* of another run .* Restore one, or start"
    ):
        resumed(folder)


def test_thousands_of_damaged_checkpoints_and_other_files_with_their_names(home, folder, tmp_path):
    shutil.copy(home / "book.txt", tmp_path / "book.txt")
    for number in range(10, 3_001):
        (folder / f"checkpoint-{number:06d}.safetensors").write_bytes(b"not one")
    (folder / "checkpoint-005000.safetensors").mkdir()
    os.mkfifo(folder / "checkpoint-005001.safetensors")
    os.symlink("/dev/zero", folder / "checkpoint-005002.safetensors")
    os.symlink("nowhere", folder / "checkpoint-005003.safetensors")
    (folder / f"checkpoint-{'9' * 200}.safetensors").write_bytes(b"")
    notices = resumed(folder)
    assert sum("Trying the checkpoint before it" in text for text in notices) == 3
    assert "skipping 2,993 more damaged checkpoints" in notices
    assert any("resuming from checkpoint-000002.safetensors: step 60" in text for text in notices)


def test_the_checkpoints_store_the_digest_of_the_run(folder, progress):
    assert json.loads((folder / "run.json").read_text())["digest"] == progress["run"]
    assert settings_of_run(folder).training == TRAINING
