"""A model trained from one encoding reads texts in any encoding. Its file only records the first one."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

import charloom as cl
from charloom.cli.run import run
from charloom.model import TextModel
from charloom.models import Network
from charloom.settings import NetworkSettings, TextSettings
from charloom.text import Vocabulary

TEXT = "der Käse schmeckt\nsüß und grün – „köstlich“\n" * 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of a text in cp1252, one of a text in UTF-8, one of bytes, and a text in three encodings."""
    folder = tmp_path_factory.mktemp("encodings")
    for encoding in ("utf-8", "cp1252", "utf-16"):
        (folder / f"{encoding}.txt").write_bytes(TEXT.encode(encoding))
    (folder / "mark.txt").write_bytes(TEXT.encode("utf-8-sig"))
    chars, data = Vocabulary.of_texts([TEXT]), Vocabulary.of_bytes()
    for name, vocabulary, text in (
        ("german", chars, TextSettings(encoding="cp1252")),
        ("other", chars, TextSettings()),
        ("bytes", data, TextSettings(units="bytes")),
    ):
        settings = NetworkSettings(hidden=8, embedding=4)
        network = Network.init(settings, vocabulary.size, vocabulary.start_id, np.random.default_rng(len(name)))
        network = jax.tree.map(lambda weight: weight * 5, network)
        TextModel(network, vocabulary, settings, text).save(folder / f"{name}.safetensors")
    return folder


@pytest.fixture
def charloom(folder, monkeypatch, capsys):
    """Runs a command in the folder; returns its status, output and errors."""
    monkeypatch.chdir(folder)

    def charloom(*words):
        status = run(words)
        return status, *capsys.readouterr()

    return charloom


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("utf-8.txt", ()),
        ("mark.txt", ()),
        ("cp1252.txt", ("--encoding", "cp1252")),
        ("utf-16.txt", ("--encoding", "utf-16")),
        ("utf-16.txt", ("--encoding", "utf-16", "--per", "line")),
        ("cp1252.txt", ("--encoding", "cp1252", "--per", "line")),
        ("cp1252.txt", ("--encoding", "cp1252", "--dynamic-evaluation")),
        ("cp1252.txt", ("--encoding", "cp1252", "--html", "page.html")),
    ],
)
def test_a_text_scores_the_same_in_every_encoding(charloom, text, options):
    status, out, err = charloom("score", "german.safetensors", text, "--json", *options)
    assert status == 0, err
    rows = [json.loads(line) for line in out.splitlines()]
    wanted = cl.load("german.safetensors").score(TEXT)
    if "--per" in options:
        assert "".join(row["text"] + "\n" for row in rows) == TEXT
    else:
        assert rows[0]["characters"] == len(TEXT)
        assert rows[0]["nats_per_char"] == pytest.approx(wanted.nats_per_char, abs=1e-4)
    is_default = "--encoding" not in options
    assert ("as utf-8, but the model was trained on a text in cp1252: set the encoding" in err) == is_default


def test_a_text_in_the_wrong_encoding_is_refused(charloom):
    status, out, err = charloom("score", "german.safetensors", "cp1252.txt")
    assert (status, out) == (1, "")
    assert "cannot decode cp1252.txt as utf-8: byte 0xe4 at offset 5. Pass the text's encoding with --encoding" in err


def test_other_commands_have_the_encoding_option(charloom):
    status, out, err = charloom(
        "classify", "german.safetensors", "other.safetensors", "bytes.safetensors", "--text", "cp1252.txt",
        "--encoding", "cp1252", "--json",
    )  # fmt: skip
    assert status == 0, err
    of_utf8 = charloom(
        "classify", "german.safetensors", "other.safetensors", "bytes.safetensors", "--text", "utf-8.txt", "--json"
    )
    assert json.loads(out) == json.loads(of_utf8[1])
    status, _, err = charloom("report", "german.safetensors", "cp1252.txt", "--encoding", "cp1252", "--out", "r.html")
    assert status == 0, err
    status, _, err = charloom(
        "generate",
        "german.safetensors",
        "--count",
        "1",
        "--length",
        "9",
        "--novel",
        "cp1252.txt",
        "--encoding",
        "cp1252",
    )
    assert status == 0, err


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            ("score", "none.safetensors", "utf-8.txt", "--encoding", "klingon"),
            "must be a text encoding, such as utf-8, cp1252 or utf-16, got 'klingon'",
        ),
        (("classify", "a", "b", "--encoding", "klingon"), "must be a text encoding"),
        (("report", "none", "t", "--encoding", "klingon"), "must be a text encoding"),
        (("report", "none", "--encoding", "cp1252"), "give a text as well"),
        (("generate", "none", "--encoding", "cp1252"), "give --novel as well"),
        (("score", "bytes.safetensors", "utf-8.txt", "--encoding", "cp1252"), "cannot be combined with bytes"),
    ],
)
def test_invalid_combinations_are_refused(charloom, words, problem):
    status, out, err = charloom(*words)
    assert (status, out) == (2, "")
    assert err.startswith("charloom: ")
    assert err.count("\n") == 1
    assert problem in err


def test_standard_input_can_have_an_encoding(folder):
    done = subprocess.run(
        [sys.executable, "-m", "charloom", "score", "german.safetensors", "-", "--encoding", "cp1252", "--json"],
        cwd=folder,
        input=TEXT.encode("cp1252"),
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["characters"] == len(TEXT)


def test_a_report_after_training_uses_the_same_encoding(charloom):
    status, _, err = charloom(
        "train", "cp1252.txt", "--encoding", "cp1252", "--steps", "2", "--hidden", "8", "--report",
        "--out", "trained.safetensors",
    )  # fmt: skip
    assert status == 0, err
    assert "Käse" not in err
    assert cl.load("trained.safetensors").text.encoding == "cp1252"
