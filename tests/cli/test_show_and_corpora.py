import hashlib
import json

from tests.cli.conftest import TEXT, assert_refused


def test_show_a_model(charloom, model_file):
    facts = json.loads(charloom("show", model_file, "--json").stdout)
    assert facts == {
        "format_version": 3,
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


def test_show_the_machine(charloom):
    facts = json.loads(charloom("show", "--json").stdout)
    assert facts["device"].startswith(("cpu", "TFRT_CPU", "cuda"))
    assert facts["cores"] >= 1
    assert "processor" in charloom("show").stdout


def test_corpora_are_listed(charloom, tmp_path):
    lines = charloom("corpora", "--json", CHARLOOM_DATA=str(tmp_path)).stdout.splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["nietzsche", "tinyshakespeare", "names", "python-reference"]
    assert "comes with Python" in charloom("corpora", "python-reference").stdout


def test_a_wrong_copy_and_a_wrong_name(charloom, tmp_path):
    (tmp_path / "names.txt").write_text("not the names")
    assert_refused(charloom("corpora", "names", CHARLOOM_DATA=str(tmp_path)), 1, "SHA-256 differs")
    assert_refused(charloom("corpora", "shakespeare"), 1, "Did you mean tinyshakespeare?")


def test_help_is_there_and_has_examples(charloom):
    for command in ("train", "generate", "show", "corpora"):
        text = charloom(command, "--help").stdout
        assert f"charloom {command}" in text.split("Options:")[0].split("\n", 1)[1]
    assert charloom().stdout == charloom("--help").stdout
    assert charloom("--version").stdout.startswith("charloom 0.")
    assert_refused(charloom("frobnicate"), 2, "no such command 'frobnicate'")
