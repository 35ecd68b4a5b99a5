"""`charloom train --repeat`: the same model file again, from only the text and that file."""

import pytest

import charloom as cl
from charloom.artifacts import read_tensor_file, write_tensor_file
from charloom.model import load
from charloom.training import Saved
from tests.cli.conftest import assert_refused

TINY = ("--hidden", 8, "--embedding", 4, "--batch-size", 2, "--sequence-length", 8, "--steps", 30)


def trained(charloom, folder, *words, stdin=None):
    done = charloom("train", "--out", folder / "m.safetensors", *words, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return folder / "m.safetensors"


def rewritten(path, change):
    """Writes a model file with another training section and the same weights."""
    tensors, metadata = read_tensor_file(path)
    change(metadata["training"])
    write_tensor_file(path, tensors, metadata)


@pytest.mark.parametrize(
    "words",
    [
        ["book.txt", *TINY, "--dropout", "0.1234567890123", "--seed", 5],
        ["--records", "--validation", 3, *TINY, "--", "-names.txt"],
        ["names.txt", *TINY, "--delimiter", r"\n", "--min-count", 3, "--lowercase"],
        ["book.txt", *TINY, "--schedule", "constant", "--warmup-ratio", 0, "--clip-norm", 0.25, "--patience", 1],
        ["book.txt", *TINY, "--bytes", "--learning-rate", "1e-05", "--weight-dropout", 0.3],
        ["-", *TINY, "--encoding", "cp1252", "--cell", "gru", "--layers", 2, "--weight-decay", 0],
        ["book.txt", *TINY, "--precision", "bfloat16"],
    ],
)
def test_a_repeated_run_gives_the_same_bytes(charloom, book, tmp_path, monkeypatch, words):
    text = book.read_text()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "book.txt").write_text(text)
    for name in ("names.txt", "-names.txt"):
        (tmp_path / name).write_text("anna\nbert\ncora\ndora\nemil\nfred\ngina\nhans\nida\njan\nkarl\nlea\n" * 8)
    stdin = text if "-" in words else None
    model = trained(charloom, tmp_path, *words, stdin=stdin)
    source = words[-1] if words[-1] == "-names.txt" else words[0]
    again = tmp_path / "again.safetensors"
    done = charloom("train", "--repeat", model, "--out", again, "--", source, stdin=stdin)
    assert done.returncode == 0, done.stderr
    assert again.read_bytes() == model.read_bytes()


def test_only_the_model_of_an_ended_run_is_repeatable(book, tmp_path):
    """A file from the middle of a run must not: the run may be killed."""
    models = []

    def on_event(event):
        if isinstance(event, Saved):
            models.append(load(out))

    out = tmp_path / "m.safetensors"
    cl.train(book, out=out, epochs=3, hidden=8, batch_size=2, sequence_length=8, on_event=on_event)
    assert len(models) >= 2
    assert [model.training["is_repeatable"] for model in models] == [False] * (len(models) - 1) + [True]
    assert load(out).training["is_repeatable"]


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_the_model_that_is_repeated_is_not_replaced(charloom, book, tmp_path, force):
    model = trained(charloom, tmp_path, book, *TINY)
    before = model.read_bytes()
    done = charloom("train", book, "--repeat", model, "--out", model, *force)
    assert_refused(done, 1, "is one of the files to read")
    assert model.read_bytes() == before


def test_the_same_text_under_another_name_gives_the_same_bytes(charloom, book, tmp_path):
    model = trained(charloom, tmp_path, book, *TINY)
    (tmp_path / "other.txt").write_text(book.read_text())
    again = tmp_path / "again.safetensors"
    done = charloom("train", tmp_path / "other.txt", "--repeat", model, "--out", again)
    assert done.returncode == 0, done.stderr
    assert again.read_bytes() == model.read_bytes()


def test_another_text_is_refused_with_both_digests(charloom, book, tmp_path):
    model = trained(charloom, tmp_path, book, *TINY)
    other = tmp_path / "other.txt"
    other.write_text(book.read_text() + "!")
    done = charloom("train", other, "--repeat", model, "--out", tmp_path / "new.safetensors")
    assert_refused(done, 1, "other.txt is not the text that the model was trained on", load(model).trained_on["sha256"])
    assert not (tmp_path / "new.safetensors").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--hidden", 16, "--dropout", 0.5), "leave out --hidden, --dropout"),
        (("--budget", "1m"), "leave out --budget"),
        (("--records",), "leave out --records"),
        (("--seed", 3), "leave out --seed"),
        (("--resume", "run"), "--resume and --repeat exclude each other"),
    ],
)
def test_other_settings_are_refused(charloom, book, model_file, words, message):
    assert_refused(charloom("train", book, "--repeat", model_file, *words), 2, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda training: training.clear(), "does not say how it was trained"),
        (lambda training: training.pop("seed"), "does not say how it was trained: seed missing"),
        (lambda training: training.update(is_repeatable=False), "cannot be repeated"),
        (lambda training: training.update(step_plan=[[0, 7]]), "training.step_plan ends after 7 steps"),
        (lambda training: training.update(step_plan=[[1, 30]]), "pairs of a step, ascending from 0"),
        (
            lambda training: training.update(step_plan=[[0, 4], [5, 30]]),
            "a plan that starts after the previous one ended",
        ),
        (lambda training: training.update(dropout=-1), "dropout"),
        (lambda training: training.update(schedule="linear"), "training.schedule"),
    ],
)
def test_a_file_without_valid_training_settings_is_refused(charloom, book, tmp_path, change, message):
    model = trained(charloom, tmp_path, book, *TINY)
    rewritten(model, change)
    done = charloom("train", book, "--repeat", model, "--out", tmp_path / "new.safetensors")
    assert_refused(done, 1, message)
    assert not (tmp_path / "new.safetensors").exists()


def test_a_damaged_or_missing_model_is_refused(charloom, book, tmp_path):
    model = trained(charloom, tmp_path, book, *TINY)
    model.write_bytes(model.read_bytes()[:-50])
    assert_refused(charloom("train", book, "--repeat", model), 1, "m.safetensors")
    assert_refused(charloom("train", book, "--repeat", tmp_path / "none.safetensors"), 1, "none.safetensors")


def test_another_machine_is_reported(charloom, book, tmp_path):
    model = trained(charloom, tmp_path, book, *TINY)
    rewritten(model, lambda training: training["machine"].update(processor="Another One 3000\x1b[31m"))
    done = charloom("train", book, "--repeat", model, "--out", tmp_path / "new.safetensors")
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if "may differ" in line)
    assert "processor Another One 3000\\x1b[31m then, " in line
