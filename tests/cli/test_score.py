import json
import math

import numpy as np
import pytest

from charloom.model import load
from tests.cli.conftest import TEXT, assert_refused
from tests.reference import sigmoid

REST = TEXT[:900].replace("lazy", "dazy")


@pytest.fixture
def rest(tmp_path):
    (tmp_path / "rest.txt").write_text(REST)
    return tmp_path / "rest.txt"


def nats_of(path, text):
    """What each character of `text` costs, in float64 and from the equations."""
    model = load(path)
    (cell,), head = model.network.cells, model.network.head
    weights = [
        np.asarray(w, np.float64) for w in (cell.kernel, cell.recurrent_kernel, cell.bias, head.kernel, head.bias)
    ]
    kernel, recurrent_kernel, bias, head_kernel, head_bias = weights
    embedding = np.asarray(model.network.embedding, np.float64)
    ids = model.vocabulary.encode(text)
    h = c = np.zeros(cell.hidden)
    nats = []
    for before, after in zip([model.vocabulary.start_id, *ids[:-1]], ids, strict=True):
        i, f, g, o = np.split(embedding[before] @ kernel + bias + h @ recurrent_kernel, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        logits = h @ head_kernel + head_bias
        nats.append(np.log(np.exp(logits).sum()) - logits[after])
    return nats


def test_a_score_is_the_mean_over_every_character(charloom, model_file, rest):
    done = charloom("score", model_file, rest, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert set(report) == {"characters", "nats_per_char", "bits_per_char", "perplexity_per_char", "unknown"}
    nats = np.mean(nats_of(model_file, REST))
    assert report["characters"] == len(REST)
    assert report["nats_per_char"] == pytest.approx(nats, abs=1e-5)
    assert report["bits_per_char"] == pytest.approx(nats / math.log(2), abs=2e-5)
    assert report["perplexity_per_char"] == pytest.approx(math.exp(nats), rel=1e-4)
    shown = charloom("score", model_file, "-", stdin=REST)
    assert shown.stdout.startswith(
        f"standard input: {report['bits_per_char']:.3f} bits ({report['nats_per_char']:.4f} nats)"
    )


def test_a_model_that_keeps_learning_is_a_figure_apart(charloom, model_file, rest):
    plain = json.loads(charloom("score", model_file, rest, "--json").stdout)
    done = charloom("score", model_file, rest, "--adapt", "--json")
    report = json.loads(done.stdout)
    assert {key: report[key] for key in plain} == plain
    # It learns the one word that it did not know.
    assert report["adapted_nats_per_char"] < 0.95 * report["nats_per_char"]
    assert report["adapted_bits_per_char"] == pytest.approx(report["adapted_nats_per_char"] / math.log(2))
    assert "while it keeps learning: " in charloom("score", model_file, rest, "--adapt").stdout


def test_unknown_characters_are_told(charloom, model_file, tmp_path):
    (tmp_path / "foreign.txt").write_text("the quick über fox 7\n")
    assert_refused(charloom("score", model_file, tmp_path / "foreign.txt"), 1, "cannot encode 'ü'")
    for policy, characters, words in (("skip", 19, "left out"), ("replace", 21, "scored as ' '")):
        done = charloom("score", model_file, tmp_path / "foreign.txt", "--unknown", policy, "--json")
        assert json.loads(done.stdout)["characters"] == characters
        assert f"2 characters {words}, as the model does not know them: " in done.stderr


def test_what_cannot_be_scored_is_refused(charloom, model_file, rest, tmp_path):
    assert_refused(charloom("score", tmp_path / "none.safetensors", rest), 1, "none.safetensors")
    assert_refused(charloom("score", model_file, tmp_path / "none.txt"), 1, "none.txt")
    assert_refused(charloom("score", model_file), 1, "standard input: empty")
    assert_refused(charloom("score"), 2, "missing argument")
    for words in (
        ("--top", 3),
        ("--above", 1),
        ("--carry",),
        ("--per", "line", "--top", 0),
        ("--per", "line", "--above", "nan"),
        ("--per", "word"),
        ("--per", "file", "--adapt"),
        ("--prompt", "the", "--adapt"),
        ("--against", model_file, "--per", "char"),
        ("--against", model_file, "--adapt"),
    ):
        assert_refused(charloom("score", model_file, rest, *words), 2)
    (tmp_path / "digits.txt").write_text("12345")
    assert_refused(
        charloom("score", model_file, tmp_path / "digits.txt", "--unknown", "skip"),
        1,
        "has no character that the model knows",
    )
