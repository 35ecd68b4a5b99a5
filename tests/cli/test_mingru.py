"""Every command works with a cell that has no native kernels."""

import json

import pytest

from charloom.model import load
from tests.cli.conftest import QUICK, assert_refused


@pytest.fixture(scope="module")
def mingru(charloom, book, tmp_path_factory):
    path = tmp_path_factory.mktemp("mingru") / "mingru.safetensors"
    options = ("--cell", "mingru", "--layers", 2, "--steps", 600, "--learning-rate", 0.01, *QUICK)
    done = charloom("train", book, "--out", path, *options)
    assert done.returncode == 0, done.stderr
    return path


def test_a_tiny_text_is_learned_by_heart(charloom, mingru):
    done = charloom("generate", mingru, "--prompt", "the quick", "--length", 35, "--temperature", 0)
    assert done.stdout.rstrip("\n") == "the quick brown fox\njumps over the lazy dog"


def test_scores_equal_those_of_python(charloom, mingru, book):
    scored = json.loads(charloom("score", mingru, book, "--json").stdout)
    assert scored["bits_per_char"] == pytest.approx(load(mingru).score(book.read_text()).bits_per_char, abs=1e-5)
    assert scored["bits_per_char"] < 1


def test_classify_picks_the_model_that_fits_best(charloom, mingru, french):
    for text, best in (("the lazy dog\n", mingru), ("voix d'un cœur\n", french)):
        done = charloom("classify", mingru, french, "--json", stdin=text)
        assert json.loads(done.stdout)["model"] == str(best)


def test_show_says_why_the_reference_computes_it(charloom, mingru):
    lines = charloom("show", mingru).stdout.splitlines()
    assert lines[0].startswith("model       mingru, 2 × 32, ")
    assert "kernels     reference: minGRU has no native kernels" in lines
    assert json.loads(charloom("show", mingru, "--json").stdout)["cell"] == "mingru"


def test_weight_dropout_is_refused_before_the_text_is_read(charloom, tmp_path):
    done = charloom("train", "no-such-text", "--cell", "mingru", "--weight-dropout", 0.2, cwd=tmp_path)
    assert_refused(done, 2, "--weight-dropout applies to recurrent weights; mingru has none")
