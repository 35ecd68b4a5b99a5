"""Runs with a folder: its content, and that a resumed run gives the same model."""

import json

import jax
import numpy as np
import pytest

import charloom as cl
from charloom.artifacts import lock_folder
from charloom.errors import BudgetError, OutputError, RunFolderError
from charloom.runs import RunSettings, run_folder, run_training, settings_of_run
from charloom.runs.metrics_file import MetricsFile
from charloom.runs.run_folder import RunFolder
from charloom.runs.run_recorder import RunRecorder
from charloom.settings import NetworkSettings, TrainingSettings
from charloom.training import Evaluation, Notice, Progress, Saved, follow
from tests.runs.test_training_run import TEXT

STEPS = 120


@pytest.fixture
def book(tmp_path):
    (tmp_path / "book.txt").write_text(TEXT)
    return tmp_path / "book.txt"


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(run_folder, "_MIN_SECONDS_BETWEEN", 0.0)
    monkeypatch.setattr(run_folder, "_MAX_TIME_FRACTION", 1e9)


def settings(book, **others):
    return RunSettings(
        sources=(book,),
        out=book.with_name("m.safetensors"),
        network=NetworkSettings(hidden=24, embedding=8),
        training=TrainingSettings(batch_size=4, sequence_length=16, dropout=0.1, steps=STEPS),
        **others,
    )


def resumed(folder, on_event=lambda event: None):
    return follow(run_training(settings_of_run(folder)), on_event)


def stopped_after(run, dispatches):
    """Follows a run and stops it after some dispatches; returns its events."""
    events = []

    def should_stop():
        return sum(isinstance(event, Progress) for event in events) + 1 >= dispatches

    follow(run_training(run, should_stop), events.append)
    return events


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("dispatches", [1, 2, 5])
def test_a_stopped_and_resumed_run_gives_the_same_file(book, dispatches):
    follow(run_training(settings(book)), lambda event: None)
    wanted = book.with_name("m.safetensors").read_bytes()
    folder = book.with_name("run")
    stopped_after(settings(book, folder=folder), dispatches)
    assert book.with_name("m.safetensors").read_bytes() != wanted
    stopped_after(settings_of_run(folder), 2)
    resumed(folder)
    assert book.with_name("m.safetensors").read_bytes() == wanted
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    history = cl.load(book.with_name("m.safetensors")).training["history"]
    assert [line["step"] for line in metrics] == [entry["step"] for entry in history]
    assert metrics[-1]["validation_nats_per_char"] == history[-1]["validation_nats_per_char"]


@pytest.mark.usefixtures("often")
def test_the_last_two_checkpoints_are_kept_and_a_damaged_one_is_skipped(book):
    folder = book.with_name("run")
    stopped_after(settings(book, folder=folder), 4)
    older, newer = sorted(folder.glob("checkpoint-*"))
    newer.write_bytes(newer.read_bytes()[:1000])
    notices = []
    resumed(folder, lambda event: notices.append(event.text) if isinstance(event, Notice) else None)
    (damaged,) = [text for text in notices if "damaged" in text]
    assert newer.name in damaged
    assert damaged.endswith("Trying the checkpoint before it")
    assert any(text.startswith(f"resuming from {older.name}") for text in notices)


@pytest.mark.usefixtures("often")
def test_without_a_good_checkpoint_a_run_is_neither_resumed_nor_restarted(book):
    folder = book.with_name("run")
    stopped_after(settings(book, folder=folder), 3)
    for checkpoint in folder.glob("checkpoint-*"):
        checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(RunFolderError, match="does not hold a good checkpoint"):
        resumed(folder)
    (folder / "run.json").unlink()
    with pytest.raises(OutputError, match="already holds a run"):
        follow(run_training(settings(book, folder=folder)), lambda event: None)


def test_unwritable_metrics_give_a_notice_and_the_same_model(book, monkeypatch):
    def full(self, metrics):
        raise OutputError("cannot write metrics.jsonl: No space left on device.")

    follow(run_training(settings(book)), lambda event: None)
    wanted = book.with_name("m.safetensors").read_bytes()
    monkeypatch.setattr(MetricsFile, "add", full)
    notices = []
    follow(
        run_training(settings(book, folder=book.with_name("run"))),
        lambda event: notices.append(getattr(event, "text", "")),
    )
    assert sum("No space left on device. Training continues" in text for text in notices) > 1
    assert book.with_name("m.safetensors").read_bytes() == wanted


def test_a_run_folder_inside_the_text_is_refused(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text(TEXT)
    with pytest.raises(OutputError, match="would read it as text"):
        cl.train(tmp_path / "notes", run=tmp_path / "notes" / "run", steps=2)


def test_a_finished_run_is_scored_again_and_a_run_without_checkpoints_restarts(book):
    folder = book.with_name("run")
    model = cl.train(book, run=folder, steps=40, hidden=24, batch_size=4, sequence_length=16)
    kernel = np.asarray(model.network.head.kernel)
    events = []
    again = cl.resume(folder, events.append)
    assert not any(isinstance(event, Evaluation) for event in events)
    notices = [event.text for event in events if isinstance(event, Notice)]
    assert any(text.endswith("step 40, the end of this run; scoring and saving its model again") for text in notices)
    np.testing.assert_array_equal(again.network.head.kernel, kernel)
    for checkpoint in folder.glob("checkpoint-*"):
        checkpoint.unlink()
    np.testing.assert_array_equal(cl.resume(folder).network.head.kernel, kernel)


def test_a_budget_that_is_too_short_frees_a_new_folder_and_keeps_an_old_one(book, monkeypatch):
    def too_short(*_):
        yield Notice("a first step was made")
        raise BudgetError("too short")

    folder = book.with_name("run")
    monkeypatch.setattr(RunRecorder, "follow", too_short)
    with pytest.raises(BudgetError):
        follow(run_training(settings(book, folder=folder)), lambda event: None)
    assert not (folder / "run.json").exists()
    events = run_training(settings(book, folder=folder))
    while next(events) != Notice("a first step was made"):
        pass
    events.close()  # as if the process were killed
    with pytest.raises(BudgetError):
        resumed(folder)
    assert (folder / "run.json").exists()


def test_another_text_version_or_folder_is_refused(book, tmp_path):
    folder = book.with_name("run")
    cl.train(book, run=folder, steps=2, hidden=8, batch_size=4, sequence_length=16)
    with pytest.raises(OutputError, match=r"already holds a run\. Resume it with --resume"):
        cl.train(book, run=folder, steps=2, hidden=8)
    with lock_folder(folder), pytest.raises(OutputError, match="another charloom process is using"):
        cl.resume(folder)
    book.write_text(TEXT + "more")
    with pytest.raises(
        RunFolderError,
        match=r"a run on book\.txt \(2,800 characters, .* the text is now book\.txt \(2,804 characters, ",
    ):
        cl.resume(folder)
    run = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(run | {"version": "0.0.9"}))
    with pytest.raises(RunFolderError, match=r"of charloom 0\.0\.9, but this is"):
        cl.resume(folder)
    (folder / "run.json").write_text("{")
    with pytest.raises(RunFolderError, match="is damaged"):
        cl.resume(folder)
    with pytest.raises(RunFolderError, match="does not hold a run to resume"):
        cl.resume(tmp_path)


@pytest.mark.usefixtures("often")
def test_an_unwritable_checkpoint_does_not_stop_the_run(book, monkeypatch):
    folder = book.with_name("run")
    write, calls = run_folder.write_checkpoint, []

    def fails_at_first_and_later(path, *rest):
        calls.append(path)
        if len(calls) in (1, 4):
            raise OutputError(f"cannot write {path}: No space left on device. Free some space.")
        write(path, *rest)

    monkeypatch.setattr(run_folder, "write_checkpoint", fails_at_first_and_later)
    events = []
    follow(run_training(settings(book, folder=folder)), events.append)
    notices = [event.text for event in events if isinstance(event, Notice) and "No space left" in event.text]
    assert len(notices) == 2
    assert notices[0].endswith("Training continues; earlier checkpoints are unchanged")
    assert len(list(folder.glob("checkpoint-*"))) == 2
    assert isinstance(events[-1], Saved)


def test_checkpoints_take_a_hundredth_of_the_time_at_most(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(run_folder.time, "monotonic", lambda: now[0])

    def slow(path, *rest):
        now[0] += 3.0
        path.touch()

    monkeypatch.setattr(run_folder, "write_checkpoint", slow)
    with RunFolder.opened(tmp_path, fresh=True) as folder:
        now[0] += 9.9
        assert not folder.is_checkpoint_due
        now[0] += 0.1
        assert folder.is_checkpoint_due
        folder.write_checkpoint({"a": jax.numpy.zeros(1)}, {})
        now[0] += 299
        assert not folder.is_checkpoint_due
        now[0] += 1
        assert folder.is_checkpoint_due
