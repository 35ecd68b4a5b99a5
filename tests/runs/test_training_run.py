import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import charloom as cl
from charloom.data import TokenStream
from charloom.errors import CharloomError, OutputError, SettingError, TooShortError
from charloom.runs import RunSettings, run_training, settings_of_run
from charloom.runs.checkpoint import read_progress
from charloom.runs.splits import fit_batch_size, split_validation
from charloom.settings import NetworkSettings, TextSettings, TrainingSettings
from charloom.training import Budget, Evaluation, Notice, Saved, Stopped, follow

TEXT = "a man a plan a canal panama\n" * 100
QUICK = {"hidden": 24, "embedding": 8, "batch_size": 4, "sequence_length": 16}


@pytest.fixture
def book(tmp_path):
    (tmp_path / "book.txt").write_text(TEXT)
    return tmp_path / "book.txt"


def test_python_trains_generates_saves_and_loads(book, tmp_path):
    model = cl.train(book, steps=500, learning_rate=0.01, **QUICK)
    text = model.generate("a man a", 40, temperature=0)
    assert text.startswith("a man a plan a canal panama\n")
    model.save(tmp_path / "m.safetensors")
    assert cl.load(tmp_path / "m.safetensors").generate("a man a", 40, temperature=0) == text
    assert model.trained_on["characters"] == len(TEXT)
    history = model.training["history"]
    assert history[-1]["step"] == 500
    assert {len(sample["text"]) for sample in model.training["samples"]} == {160}
    assert model.training["validation_nats_per_char"] == pytest.approx(
        min(entry["validation_nats_per_char"] for entry in history), abs=1e-4
    )


def test_the_file_exists_after_the_first_improvement(book, tmp_path):
    out, kinds = tmp_path / "m.safetensors", []

    def on_event(event):
        kinds.append(type(event))
        if isinstance(event, Saved):
            assert cl.load(out).training["kept_step"] > 0

    cl.train(book, out=out, steps=60, on_event=on_event, **QUICK)
    assert kinds[0] is Notice
    assert kinds.index(Saved) == kinds.index(Evaluation) + 1
    assert kinds[-2:] == [Stopped, Saved]


def test_seeds_beyond_32_bits_are_different(book):
    kernels = [cl.train(book, steps=1, seed=seed, **QUICK).network.head.kernel for seed in (3, 3 + 2**32)]
    assert not np.array_equal(*kernels)


def test_schedule_warmup_clipping_and_resets_can_be_set(book):
    """Each setting is in the model file and changes the weights."""
    choices = {
        "schedule": ("schedule", "constant"),
        "warmup_ratio": ("warmup_ratio", 0.5),
        "clip_norm": ("clip_norm", 0.01),
        "state_reset_probability": ("state_reset_probability", 0.9),
    }
    usual = cl.train(book, steps=8, **QUICK)
    assert [usual.training[field] for field, _ in choices.values()] == ["cosine", 0.05, 1.0, 0.01]
    for argument, (field, value) in choices.items():
        model = cl.train(book, steps=8, **QUICK, **{argument: value})
        assert model.training[field] == value
        assert not np.array_equal(model.network.head.kernel, usual.network.head.kernel), argument


def test_records_always_start_from_the_zero_state(book):
    with pytest.raises(SettingError, match="must be 0 for records"):
        cl.train(book, steps=1, records=True, state_reset_probability=0.1)
    model = cl.train(book, steps=1, records=True, state_reset_probability=0, validation=5, **QUICK)
    assert model.training["state_reset_probability"] == 0
    assert model.training["samples"][0]["text"].count("\n") == 4  # five records, one per line


def test_the_kept_model_is_the_best_on_held_out_text(tmp_path):
    # The network memorizes noise, which makes it worse on the held-out text.
    rng = np.random.default_rng(0)
    (tmp_path / "noise.txt").write_text("".join(rng.choice(list("abcdefgh"), 700)))
    found = []
    model = cl.train(
        tmp_path / "noise.txt", steps=600, learning_rate=0.02, dropout=0, on_event=found.append,
        hidden=64, embedding=8, batch_size=4, sequence_length=16,
    )  # fmt: skip
    evaluations = [event for event in found if isinstance(event, Evaluation)]
    best = min(evaluations, key=lambda event: event.validation_nats_per_char)
    assert best.step < 600
    assert model.training["kept_step"] == best.step
    assert model.training["validation_nats_per_char"] == pytest.approx(best.validation_nats_per_char, abs=1e-4)
    assert evaluations[-1].validation_nats_per_char > best.validation_nats_per_char


@pytest.mark.parametrize(
    ("stops", "message"), [(True, r"stopped before there was a model to keep\."), (False, "training diverged")]
)
def test_a_run_without_a_model_is_an_error(book, tmp_path, monkeypatch, stops, message):
    monkeypatch.setattr("charloom.training.loop.score_blocks", lambda *_: SimpleNamespace(nats_per_char=np.nan))
    settings = RunSettings(
        sources=(book,),
        out=tmp_path / "m.safetensors",
        network=NetworkSettings(hidden=8, embedding=4),
        training=TrainingSettings(batch_size=4, sequence_length=16, steps=2),
    )
    with pytest.raises(CharloomError, match=message):
        follow(run_training(settings, lambda: stops), lambda event: None)
    assert not (tmp_path / "m.safetensors").exists()


@pytest.mark.parametrize("seconds", [2.9, 3.1, 200.0])
def test_a_stop_with_long_scores_is_announced(book, monkeypatch, seconds):
    monkeypatch.setattr("charloom.runs.training_run.closing_seconds", lambda *_: seconds)
    settings = RunSettings(
        sources=(book,),
        network=NetworkSettings(hidden=8, embedding=4),
        training=TrainingSettings(batch_size=4, sequence_length=16, steps=2),
    )
    notices = []
    follow(run_training(settings, lambda: True), lambda event: notices.append(getattr(event, "text", "")))
    matching = [text for text in notices if text.startswith("scoring the held-out text, which takes about")]
    assert len(matching) == (seconds > 3)
    assert any("2,520 characters to train on, 280 characters to validate on" in text for text in notices)
    assert any(text.endswith("; 2 steps, 0.0508 epochs") for text in notices)  # of 64 characters each


def test_the_model_does_not_replace_its_text(book):
    with pytest.raises(OutputError, match="not a model that charloom made"):
        cl.train(book, out=book)
    assert book.read_text() == TEXT


@given(st.integers(100, 10**6), st.floats(0.01, 0.9))
def test_the_training_part_is_rounded_down(length, share):
    if length * share < 11:
        return
    stream = TokenStream(np.broadcast_to(np.uint8(0), length), np.zeros(1, np.int64))
    training, validation, notices = split_validation(stream, share)
    assert len(training) + len(validation) == length
    assert len(training) <= length * (1 - share) + 1e-6
    assert len(training) > length * (1 - share) - 1 - 1e-6
    assert notices == []


def stream_of(length):
    return TokenStream(np.broadcast_to(np.uint8(0), length), np.zeros(1, np.int64))


def test_the_published_splits():
    assert len(split_validation(stream_of(1_115_394), 0.1)[0]) == 1_003_854
    assert len(split_validation(stream_of(600_893), None)[0]) == 540_803
    assert len(split_validation(stream_of(1000), None)[0]) == 900  # not 899, although 1 - 0.1 < 0.9 in floats
    assert len(split_validation(stream_of(99_993), 1025)[1]) == 1025


def test_a_long_text_holds_out_half_a_million_characters_with_a_notice():
    _, validation, notices = split_validation(stream_of(20_000_000), None)
    assert len(validation) == 500_000
    assert "500,000 characters instead of a tenth of the text (2,000,000)" in notices[0]
    assert len(split_validation(stream_of(20_000_000), 0.1)[1]) == 2_000_000


@pytest.mark.parametrize(("length", "share"), [(5, None), (90, None), (1000, 0.001), (1000, 9)])
def test_a_held_out_part_that_is_too_small_is_refused(length, share):
    with pytest.raises(TooShortError, match="at least 10 are needed"):
        split_validation(stream_of(length), share)


def test_a_hundred_characters_are_enough():
    training, validation, _ = split_validation(stream_of(100), None)
    fitted, notices = fit_batch_size(TrainingSettings(), len(training))
    assert (len(validation), fitted.batch_size, fitted.sequence_length) == (10, 1, 64)
    assert len(notices) == 1


@given(st.integers(2, 10**5), st.integers(1, 100), st.integers(1, 600))
def test_fitted_rows_always_fit(characters, batch_size, sequence):
    fitted, notices = fit_batch_size(TrainingSettings(batch_size=batch_size, sequence_length=sequence), characters)
    assert fitted.sequence_length <= characters // fitted.batch_size
    assert bool(notices) == ((fitted.batch_size, fitted.sequence_length) != (batch_size, sequence))
    assert (fitted.batch_size, fitted.sequence_length) == (batch_size, sequence) or sequence > characters // batch_size


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        (TextSettings(), "lstm"),
        (TextSettings(delimiter="\n"), "lstm"),
        (TextSettings(units="bytes"), "lstm"),
        (TextSettings(), "mingru"),
    ],
)
def test_a_resumed_run_gives_the_same_file(tmp_path, text, cell):
    (tmp_path / "names.txt").write_text("".join(f"{'ab' * (at % 7)}c{at % 100}\n" for at in range(400)))
    settings = RunSettings(
        sources=(tmp_path / "names.txt",),
        out=tmp_path / "whole.safetensors",
        text=text,
        network=NetworkSettings(cell=cell, hidden=16, embedding=4),
        training=TrainingSettings(batch_size=4, sequence_length=16, steps=40, validation=0.2, weight_decay=0.1),
    )
    follow(run_training(settings), lambda event: None)
    interrupted = replace(settings, out=tmp_path / "resumed.safetensors", folder=tmp_path / "run")
    calls = []
    follow(run_training(interrupted, lambda: len(calls.append(0) or calls) == 4), lambda event: None)
    assert (tmp_path / "run" / "checkpoint-000001.safetensors").exists()
    cl.resume(tmp_path / "run")
    assert (tmp_path / "resumed.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_a_resumed_run_continues_the_spent_budget(book, tmp_path, monkeypatch):
    settings = RunSettings(
        sources=(book,),
        network=NetworkSettings(hidden=16, embedding=4),
        training=TrainingSettings(batch_size=4, sequence_length=16, budget=1000.0),
        folder=tmp_path / "run",
        given=frozenset({"hidden"}),
    )
    start = time.monotonic()
    calls = []
    follow(run_training(settings, lambda: len(calls.append(0) or calls) == 3), lambda event: None)
    passed = time.monotonic() - start
    progress = read_progress(tmp_path / "run" / "checkpoint-000001.safetensors")
    assert 0 < progress["spent"] <= passed
    assert progress["loop"]["step"] > 0

    recorded = {}

    class Watched(Budget):
        def add_spent(self, spent):
            recorded["before"], recorded["reserved"] = self.spent, self.reserved
            super().add_spent(spent)
            recorded["after"] = self.spent

    monkeypatch.setattr("charloom.runs.training_run.Budget", Watched)
    resumed = settings_of_run(tmp_path / "run")
    assert resumed.training.budget == 1000
    result = follow(run_training(resumed, lambda: True), lambda event: None)
    assert recorded["reserved"] == 0  # unless the caller reserves time
    assert recorded["after"] - recorded["before"] == pytest.approx(progress["spent"], abs=0.5)
    assert result.stopped.step > progress["loop"]["step"]
    plans = result.model.training["step_plan"] or [(0, result.model.training["steps"])]
    assert tuple(plans[0]) == tuple(progress["loop"]["step_plan"]["plans"][0])
    assert not result.model.training["is_repeatable"]  # because it was stopped


@pytest.mark.parametrize(("end", "is_worse"), [("cd", True), ("ab", False)])
def test_a_model_worse_than_a_uniform_one_is_reported(tmp_path, end, is_worse):
    text, events = tmp_path / "text.txt", []
    text.write_text("cd" + "ab" * 1_800 + end * 200)  # the last tenth is held out
    model = cl.train(text, on_event=events.append, steps=60, learning_rate=0.01, **QUICK)
    uniform = np.log(model.vocabulary.size)
    assert (model.training["validation_nats_per_char"] > uniform) == is_worse
    notices = [event.text for event in events if isinstance(event, Notice)]
    matching = [text for text in notices if f"({uniform / np.log(2):.3f} bits per character)" in text]
    assert len(matching) == is_worse
