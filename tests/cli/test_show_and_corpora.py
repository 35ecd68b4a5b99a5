import hashlib
import json

import pytest

from tests.cli.conftest import TEXT, assert_refused


def test_show_a_model(charloom, model_file):
    metadata = json.loads(charloom("show", model_file, "--json").stdout)
    assert metadata == {
        "format_version": 4,
        "cell": "lstm",
        "layers": 1,
        "hidden": 32,
        "embedding": 8,
        "parameters": 28 * 8 + 4 * 32 * (8 + 32 + 1) + 32 * 28 + 28,
        "vocabulary": "\n abcdefghijklmnopqrstuvwxyz",
        "units": "chars",
        "trained_on": {
            "name": "book.txt",
            "sha256": hashlib.sha256(TEXT.encode()).hexdigest(),
            "characters": len(TEXT),
        },
    }
    shown = charloom("show", model_file).stdout
    for words in ("lstm, 1 × 32", "28 characters", "book.txt, 2,640 characters", "bits"):
        assert words in shown


def test_show_two_models(charloom, model_file, book, tmp_path):
    other = tmp_path / "other.safetensors"
    charloom("train", book, "--out", other, "--steps", 5, "--hidden", 16, "--embedding", 8, "--batch-size", 4)
    lines = charloom("show", model_file, other, "--json").stdout.splitlines()
    assert [json.loads(line)["hidden"] for line in lines] == [32, 16]
    shown = charloom("show", model_file, other).stdout.splitlines()
    assert shown[0].endswith(f"A {model_file}")
    assert shown[1].endswith(f"B {other}")
    assert sum("lstm, 1 × " in line for line in shown) == 2
    assert sum("book.txt, 2,640 characters" in line for line in shown) == 1
    assert_refused(charloom("show", model_file, other, other), 2, "show compares two models")


def test_show_the_machine(charloom):
    metadata = json.loads(charloom("show", "--json").stdout)
    assert metadata["device"].startswith(("cpu", "TFRT_CPU", "cuda"))
    assert metadata["cores"] >= 1
    assert "processor" in charloom("show").stdout


def test_corpora_are_listed(charloom, tmp_path):
    lines = charloom("corpora", "--json", CHARLOOM_DATA=str(tmp_path)).stdout.splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["nietzsche", "tinyshakespeare", "names", "python-reference"]
    assert "comes with Python" in charloom("corpora", "python-reference").stdout


def test_a_wrong_copy_and_a_wrong_name_are_refused(charloom, tmp_path):
    (tmp_path / "names.txt").write_text("not the names")
    assert_refused(charloom("corpora", "names", CHARLOOM_DATA=str(tmp_path)), 1, "SHA-256 differs")
    assert_refused(charloom("corpora", "shakespeare"), 1, "Did you mean tinyshakespeare?")


def test_help_pages_have_examples(charloom):
    for command in ("train", "generate", "score", "classify", "report", "show", "corpora"):
        text = charloom(command, "--help").stdout
        assert f"charloom {command}" in text.split("Options:")[0].split("\n", 1)[1]
    assert charloom().stdout == charloom("--help").stdout
    assert charloom("--version").stdout.startswith("charloom 0.")
    assert_refused(charloom("frobnicate"), 2, "no such command 'frobnicate'")


@pytest.mark.parametrize(
    ("words", "status", "begin", "end"),
    [
        (("serve", "m.safetensors", "--port", "7x" * 5_000), 2, "invalid value for '--port': '7x7x", "serve --help."),
        (("report", "x" * 5_000), 1, "cannot read xxx", "xxx: File name too long. `charloom train` makes model files."),
    ],
)
def test_an_error_has_a_bounded_length(charloom, words, status, begin, end):
    done = charloom(*words)
    assert done.returncode == status
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"charloom: {begin}")
    assert line.endswith(end)
    assert len(line) < 1_100
