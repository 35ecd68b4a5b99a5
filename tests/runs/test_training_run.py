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


def test_the_file_is_there_from_the_first_improvement_on(book, tmp_path):
    out, seen = tmp_path / "m.safetensors", []

    def on_event(event):
        seen.append(type(event))
        if isinstance(event, Saved):
            assert cl.load(out).training["kept_step"] > 0

    cl.train(book, out=out, steps=60, on_event=on_event, **QUICK)
    assert seen[0] is Notice
    assert seen.index(Saved) == seen.index(Evaluation) + 1
    assert seen[-2:] == [Stopped, Saved]


def test_seeds_beyond_32_bits_are_seeds_of_their_own(book):
    kernels = [cl.train(book, steps=1, seed=seed, **QUICK).network.head.kernel for seed in (3, 3 + 2**32)]
    assert not np.array_equal(*kernels)


def test_schedule_warm_up_clip_and_resets_can_be_chosen(book):
    """Each choice is in the model's file and changes the weights."""
    choices = {
        "schedule": ("schedule", "constant"),
        "warmup_ratio": ("warmup", 0.5),
        "clip_norm": ("clip_norm", 0.01),
        "state_reset_probability": ("state_reset_probability", 0.9),
    }
    usual = cl.train(book, steps=8, **QUICK)
    assert [usual.training[field] for field, _ in choices.values()] == ["cosine", 0.05, 1.0, 0.01]
    for argument, (field, value) in choices.items():
        model = cl.train(book, steps=8, **QUICK, **{argument: value})
        assert model.training[field] == value
        assert not np.array_equal(model.network.head.kernel, usual.network.head.kernel), argument


def test_records_are_never_read_from_the_middle(book):
    with pytest.raises(SettingError, match="must be 0 for records"):
        cl.train(book, steps=1, records=True, state_reset_probability=0.1)
    model = cl.train(book, steps=1, records=True, state_reset_probability=0, validation=5, **QUICK)
    assert model.training["state_reset_probability"] == 0
    assert model.training["samples"][0]["text"].count("\n") == 4  # five records, one a line


def test_the_model_kept_is_the_best_on_validation(tmp_path):
    # Noise is learnt by heart and then no better on what was held out.
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
    ("stops", "told"), [(True, r"stopped before there was a model worth keeping\."), (False, "training diverged")]
)
def test_without_a_model_worth_keeping_it_is_told_why(book, tmp_path, monkeypatch, stops, told):
    monkeypatch.setattr("charloom.training.loop.score_blocks", lambda *_: SimpleNamespace(nats_per_char=np.nan))
    settings = RunSettings(
        sources=(book,),
        out=tmp_path / "m.safetensors",
        network=NetworkSettings(hidden=8, embedding=4),
        training=TrainingSettings(batch_size=4, sequence_length=16, steps=2),
    )
    with pytest.raises(CharloomError, match=told):
        follow(run_training(settings, lambda: stops), lambda event: None)
    assert not (tmp_path / "m.safetensors").exists()


@pytest.mark.parametrize("seconds", [2.9, 3.1, 200.0])
def test_a_stop_whose_scores_take_long_says_so(book, monkeypatch, seconds):
    monkeypatch.setattr("charloom.runs.training_run.closing_seconds", lambda *_: seconds)
    settings = RunSettings(
        sources=(book,),
        network=NetworkSettings(hidden=8, embedding=4),
        training=TrainingSettings(batch_size=4, sequence_length=16, steps=2),
    )
    notices = []
    follow(run_training(settings, lambda: True), lambda event: notices.append(getattr(event, "text", "")))
    told = [text for text in notices if text.startswith("the held-out text is scored, which takes about")]
    assert len(told) == (seconds > 3)
    assert any("2,520 characters to train on, 280 characters to validate on" in text for text in notices)
    assert any(text.endswith("; 2 steps, 0.0508 epochs") for text in notices)  # of 64 characters each


def test_the_text_itself_is_no_place_for_the_model(book):
    with pytest.raises(OutputError, match="not a model that charloom made"):
        cl.train(book, out=book)
    assert book.read_text() == TEXT


@given(st.integers(100, 10**6), st.floats(0.01, 0.9))
def test_the_training_part_is_the_floor_of_its_share(length, share):
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
    assert len(split_validation(stream_of(1000), None)[0]) == 900  # not 899, whatever 1 - 0.1 is in binary
    assert len(split_validation(stream_of(99_993), 1025)[1]) == 1025


def test_a_long_text_holds_out_half_a_million_and_says_so():
    _, validation, notices = split_validation(stream_of(20_000_000), None)
    assert len(validation) == 500_000
    assert "500,000 characters instead of a tenth of the text (2,000,000)" in notices[0]
    assert len(split_validation(stream_of(20_000_000), 0.1)[1]) == 2_000_000


@pytest.mark.parametrize(("length", "share"), [(5, None), (90, None), (1000, 0.001), (1000, 9)])
def test_too_small_a_part_to_validate_on(length, share):
    with pytest.raises(TooShortError, match="at least 10 are needed"):
        split_validation(stream_of(length), share)


def test_a_hundred_characters_will_do():
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


@pytest.mark.parametrize("text", [TextSettings(), TextSettings(delimiter="\n"), TextSettings(units="bytes")])
def test_a_run_that_is_gone_on_with_comes_to_the_same_file(tmp_path, text):
    (tmp_path / "names.txt").write_text("".join(f"{'ab' * (at % 7)}c{at % 100}\n" for at in range(400)))
    settings = RunSettings(
        sources=(tmp_path / "names.txt",),
        out=tmp_path / "whole.safetensors",
        text=text,
        network=NetworkSettings(hidden=16, embedding=4),
        training=TrainingSettings(batch_size=4, sequence_length=16, steps=40, validation=0.2, weight_decay=0.1),
    )
    follow(run_training(settings), lambda event: None)
    parts = replace(settings, out=tmp_path / "parts.safetensors", folder=tmp_path / "run")
    asked = []
    follow(run_training(parts, lambda: len(asked.append(0) or asked) == 4), lambda event: None)
    assert (tmp_path / "run" / "checkpoint-000001.safetensors").exists()
    cl.resume(tmp_path / "run")
    assert (tmp_path / "parts.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_what_is_spent_of_a_budget_is_spent_when_the_run_is_gone_on_with(book, tmp_path, monkeypatch):
    settings = RunSettings(
        sources=(book,),
        network=NetworkSettings(hidden=16, embedding=4),
        training=TrainingSettings(batch_size=4, sequence_length=16, budget=1000.0),
        folder=tmp_path / "run",
        given=frozenset({"hidden"}),
    )
    begin = time.monotonic()
    asked = []
    follow(run_training(settings, lambda: len(asked.append(0) or asked) == 3), lambda event: None)
    passed = time.monotonic() - begin
    progress = read_progress(tmp_path / "run" / "checkpoint-000001.safetensors")
    assert 0 < progress["spent"] <= passed
    assert progress["loop"]["step"] > 0

    seen = {}

    class Watched(Budget):
        def add_spent(self, spent):
            seen["before"], seen["reserved"] = self.spent, self.reserved
            super().add_spent(spent)
            seen["after"] = self.spent

    monkeypatch.setattr("charloom.runs.training_run.Budget", Watched)
    resumed = settings_of_run(tmp_path / "run")
    assert resumed.training.budget == 1000
    result = follow(run_training(resumed, lambda: True), lambda event: None)
    assert seen["reserved"] == 0  # unless the caller says so
    assert seen["after"] - seen["before"] == pytest.approx(progress["spent"], abs=0.5)
    assert result.stopped.step > progress["loop"]["step"]
    plans = result.model.training["step_plan"] or [(0, result.model.training["steps"])]
    assert tuple(plans[0]) == tuple(progress["loop"]["step_plan"]["plans"][0])
    assert not result.model.training["is_repeatable"]  # it was stopped


@pytest.mark.parametrize(("end", "is_worse"), [("cd", True), ("ab", False)])
def test_a_model_that_is_worse_than_a_blind_guess_is_told_of(tmp_path, end, is_worse):
    text, events = tmp_path / "text.txt", []
    text.write_text("cd" + "ab" * 1_800 + end * 200)  # the last tenth is held out
    model = cl.train(text, on_event=events.append, steps=60, learning_rate=0.01, **QUICK)
    guess = np.log(model.vocabulary.size)
    assert (model.training["validation_nats_per_char"] > guess) == is_worse
    notices = [event.text for event in events if isinstance(event, Notice)]
    told = [one for one in notices if f"worse than a blind guess, of {guess / np.log(2):.3f} bits per character" in one]
    assert len(told) == is_worse
