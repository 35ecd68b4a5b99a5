import json
import os
import signal
import subprocess
import sys
import time

import pytest

from charloom.model import load
from tests.cli.conftest import QUICK, TEXT, assert_refused


def train(charloom, *arguments, **options):
    return charloom("train", *QUICK, *arguments, **options)


def test_json_is_one_object_on_standard_output(charloom, book, tmp_path):
    out = tmp_path / "m.safetensors"
    done = train(charloom, book, "--out", out, "--steps", 40, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert set(report) == {
        "model", "parameters", "vocab_size", "train_chars", "validation_chars", "epochs", "steps", "seconds",
        "chars_per_second", "train_nats_per_char", "validation_nats_per_char", "validation_bits_per_char", "stopped",
    }  # fmt: skip
    assert report["model"] == str(out)
    assert report["train_chars"] == int(len(TEXT) * 0.9)
    assert report["train_chars"] + report["validation_chars"] == len(TEXT)
    assert report["vocab_size"] == 28
    assert report["steps"] == 40
    assert report["epochs"] == pytest.approx(40 * 64 / report["train_chars"])
    assert report["stopped"] == "finished"
    assert 0 < report["validation_bits_per_char"] < 4.8  # log2 of 28
    assert report["chars_per_second"] > 0
    loaded = load(out)
    assert loaded.network.parameters == report["parameters"]
    assert loaded.training["validation_nats_per_char"] == report["validation_nats_per_char"]
    assert "\x1b" not in done.stderr  # no colors without a terminal


def test_the_file_does_not_depend_on_the_number_of_threads(charloom, book, tmp_path):
    files = []
    for index, threads in enumerate((1, 2)):
        out = tmp_path / f"{index}.safetensors"
        # Large enough for XLA to divide its matrix products among the threads.
        options = ("--layers", 2, "--hidden", 256, "--batch-size", 16, "--steps", 5, "--dropout", 0.2)
        assert train(charloom, book, "--out", out, *options, "--threads", threads).returncode == 0
        files.append(out.read_bytes())
    assert files[0] == files[1]


def test_a_pipe_and_the_default_name(charloom, tmp_path):
    done = train(charloom, "-", "--steps", 5, stdin=TEXT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("model.safetensors: ")
    assert load(tmp_path / "model.safetensors").trained_on["name"] == "standard input"


def test_a_folder_as_bytes_or_in_lower_case(charloom, tmp_path):
    (tmp_path / "Words").mkdir()
    (tmp_path / "Words" / "a.txt").write_text("Quite Some Words\n" * 40)
    (tmp_path / "Words" / "b.bin").write_bytes(bytes(range(256)) * 2)
    done = train(charloom, "Words", "--steps", 5, "--lowercase", cwd=tmp_path)
    assert "left out as binary: b.bin" in done.stderr
    model = load(tmp_path / "Words.safetensors")
    assert model.text.lowercase
    assert model.vocabulary.characters == "\n deimoqrstuw"
    assert train(charloom, "Words", "--steps", 5, "--bytes", cwd=tmp_path).returncode == 0
    assert load(tmp_path / "Words.safetensors").vocabulary.units == "bytes"


def test_settings_are_adjusted_to_a_short_text_with_a_notice(charloom, tmp_path):
    (tmp_path / "short.txt").write_text("to be or not to be, " * 6)
    done = charloom("train", tmp_path / "short.txt", "--out", tmp_path / "m.safetensors", "--steps", 20)
    assert done.returncode == 0, done.stderr
    assert "batch_size 1 instead of " in done.stderr
    assert "the text has only 108 characters to train on" in done.stderr
    done = train(
        charloom, tmp_path / "short.txt", "--out", tmp_path / "m.safetensors", "--sequence-length", 512, "--steps", 9
    )
    assert done.returncode == 0, done.stderr
    assert (
        "batch_size 1 instead of 4 and sequence_length 108 instead of 512, because the text has only 108 characters"
        in done.stderr
    )


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (b"", (), ["text.txt: empty"]),
        (b"a", (), ["validation 0.1 leaves 1 of 1 characters", "at least 10"]),
        (
            b"some words " * 100,
            ("--validation", "0.001"),
            ["validation 0.001 leaves 2 of 1,100 characters", "--validation 10"],
        ),
        (b"some words " * 100, ("--validation", "1100"), ["leaves 0 of 1,100 characters to train on"]),
        (b"caf\xe9" * 100, (), ["cannot decode", "text.txt as utf-8: byte 0xe9 at offset 3", "--encoding"]),
        (b"\x00\x01" * 100, (), ["binary, not text", "Pass --bytes"]),
    ],
)
def test_unsuitable_texts_are_refused(charloom, tmp_path, content, options, words):
    (tmp_path / "text.txt").write_bytes(content)
    done = train(charloom, tmp_path / "text.txt", "--out", tmp_path / "m.safetensors", *options)
    assert_refused(done, 1, *words)
    assert not (tmp_path / "m.safetensors").exists()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("none.txt", ["no file or folder is named none.txt"]),
        ("nietzche", ["Did you mean nietzsche?"]),
        ("folder", ["folder: this folder has no files"]),
        ("pictures", ["only binary files"]),
        ("*.nothing", ["no file matches"]),
    ],
)
def test_missing_sources_are_refused(charloom, tmp_path, source, words):
    (tmp_path / "folder").mkdir()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "x.png").write_bytes(b"\x00" * 9)
    assert_refused(train(charloom, source, cwd=tmp_path), 1, *words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--hidden", "0"), ["--hidden must be a whole number from 1 to 16,384, got 0"]),
        (("--dropout", "1"), ["--dropout must be", "below 1, got 1.0"]),
        (("--learning-rate", "nan"), ["--learning-rate must be", "got nan"]),
        (("--validation", "-1"), ["--validation must be"]),
        (("--validation", "10.5"), ["--validation must be a fraction below 1 or a whole number"]),
        (("--epochs", "2", "--steps", "9"), ["--steps and epochs both set the length of training"]),
        (("--epochs", "2", "--budget", "1m"), ["--budget and epochs both set the length of training"]),
        (("--steps", "2", "--budget", "1m"), ["--steps and budget both set the length of training"]),
        (("--budget", "90"), ["'90' is not a duration: give one such as 90s, 10m, 2h or 1h30m"]),
        (("--budget", "0s"), ["--budget must be", "above 0", "got 0.0"]),
        (("--threads", "0"), ["--threads must be"]),
        (("--lanes", "16"), ["no such option: --lanes. Use --batch-size."]),
        (("--updates", "9"), ["no such option: --updates. Use --steps."]),
        (("--lr", "0.1"), ["no such option: --lr. Use --learning-rate."]),
        (("--pace", "0:9"), ["no such option: --pace. Use --repeat."]),
        (("--warmup-ratio", "1"), ["--warmup-ratio must be", "below 1, got 1.0"]),
        (("--schedule", "linear"), ["--schedule", "'linear' is not one of 'constant', 'cosine'"]),
        (("--precision", "float16"), ["--precision", "'float16' is not one of 'auto', 'float32', 'bfloat16'"]),
        (("--clip-norm", "0"), ["--clip-norm must be", "above 0 and at most 1e+38, got 0.0"]),
        (("--state-reset-probability", "1"), ["--state-reset-probability must be", "below 1, got 1.0"]),
        (("--records", "--state-reset-probability", "0.1"), ["--state-reset-probability must be 0 for records"]),
        (("--seed", "-3"), ["--seed must be"]),
        (("--epochs", "1e300"), ["--epochs must be"]),
        (("--encoding", "undefined"), ["--encoding must be a text encoding"]),
        (
            ("--encoding", "klingon"),
            ["--encoding must be a text encoding, such as utf-8, cp1252 or utf-16, got 'klingon'"],
        ),
        (("--bytes", "--lowercase"), ["--lowercase changes characters"]),
        (("--hiden", "3"), ["--hidden", "See charloom train --help"]),
        (("--hidden", "many"), ["'many' is not a valid integer"]),
    ],
)
def test_wrong_options_are_refused_without_opening_a_file(charloom, options, words):
    assert_refused(charloom("train", "there-is-no-such-file", *options), 2, *words)


def test_no_source_is_refused(charloom):
    assert_refused(charloom("train"), 2, "missing argument")


def test_an_impossible_output_is_refused_before_training(charloom, book, tmp_path):
    for out, words in {
        tmp_path / "none" / "m.safetensors": "is not a folder. Create it first",
        book / "m.safetensors": "is not a folder",
        tmp_path: "it is a folder",
        book: "it is not a model that charloom made",
    }.items():
        done = train(charloom, book, "--out", out, "--epochs", 1000)
        assert_refused(done, 1, words)
    (tmp_path / "notes.txt").write_text("precious")
    assert_refused(train(charloom, book, "--out", tmp_path / "notes.txt"), 1, "it is not a model that charloom made")
    assert (tmp_path / "notes.txt").read_text() == "precious"


def test_a_full_disk_leaves_the_old_model(charloom, book, model_file, tmp_path):
    out = tmp_path / "m.safetensors"
    out.write_bytes(model_file.read_bytes())
    done = train(charloom, book, "--out", out, "--steps", 40, file_size_limit=40)
    assert_refused(done, 1, "cannot write", "File too large. Free some space")
    assert "Training continues" in done.stderr
    assert out.read_bytes() == model_file.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_diverged_loss_is_reported(charloom, book, tmp_path):
    done = train(charloom, book, "--out", tmp_path / "m.safetensors", "--learning-rate", "1e38")
    assert done.returncode == 1
    assert "training diverged" in done.stderr
    assert "Lower --learning-rate" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_model_does_not_replace_a_text(charloom, book, model_file, tmp_path):
    (tmp_path / "a.txt").write_bytes(book.read_bytes())
    out = tmp_path / "m.safetensors"
    out.write_bytes(model_file.read_bytes())
    assert_refused(train(charloom, tmp_path, "--bytes", "--out", out), 1, "it is one of the files to read")
    assert out.read_bytes() == model_file.read_bytes()


def test_a_closed_standard_input_is_reported():
    done = subprocess.run(f"{sys.executable} -m charloom train - <&-", shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "charloom: there is no standard input to read.\n")


def interrupted(book, out, signals):
    """Sends Ctrl-C this many times after the first progress line."""
    process = subprocess.Popen(
        [sys.executable, "-m", "charloom", "train", book, "--out", out, "--steps", "1000000", *QUICK],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    assert process.stderr is not None
    lines = [process.stderr.readline()]
    while not lines[-1].startswith("epoch"):  # there is a model
        lines.append(process.stderr.readline())
        assert lines[-1], lines
    for _ in range(signals):
        process.send_signal(signal.SIGINT)
        time.sleep(0.01)
    stdout, rest = process.communicate(timeout=60)
    return process.returncode, stdout, "".join(lines) + rest


def test_ctrl_c_stops_validates_and_saves(book, tmp_path):
    out = tmp_path / "m.safetensors"
    status, stdout, stderr = interrupted(book, out, 1)
    assert status == 130
    assert "Traceback" not in stderr
    assert "stopping" in stderr
    assert stdout.startswith(f"{out}: ")
    assert load(out).training["validation_nats_per_char"] > 0


def test_ctrl_c_while_reading_quits_quietly(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "charloom", "train", "-", "--out", tmp_path / "m.safetensors"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write("a line\n" * 100_000)  # more than a pipe holds, so charloom is reading it
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout, stderr) == (130, "", "")


def test_a_network_that_does_not_fit_into_memory_is_refused(charloom, book, tmp_path):
    large = ("--hidden", 16384, "--layers", 100, "--steps", 1)
    done = charloom("train", book, *large, "--out", tmp_path / "m.safetensors")
    lines = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (1, "")
    assert lines[-1].startswith("charloom: training takes about ")
    assert "are available. Use a smaller --hidden" in lines[-1]
    assert not (tmp_path / "m.safetensors").exists()
