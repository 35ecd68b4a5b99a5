"""Reports on degenerate models, and on model files with absurd metadata."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from charloom import report as report_module
from charloom.model import load
from charloom.report import report
from charloom.text import Corpus, Vocabulary
from tests.test_model import make

HUGE = 3e38  # close to the maximum of float32


def huge(model):
    return replace(model, network=jax.tree.map(lambda weights: np.full(weights.shape, HUGE, np.float32), model.network))


ABSURD = {
    "steps": 2**53,
    "kept_step": 0,
    "train_chars": 2**53,
    "validation_chars": 0,
    "validation_nats_per_char": 1e9,
    "learning_rate": 1e38,
    "note": "\x1b[31m</script>" + "x" * 10_000,
    "history": [
        {"step": 2**53, "train_nats_per_char": 1e9, "validation_nats_per_char": None},
        {"step": 0, "train_nats_per_char": None, "validation_nats_per_char": 0},
        {"step": 0, "train_nats_per_char": 5e-324, "validation_nats_per_char": 0.0},
        {"step": 1},
        {},
    ],
    "samples": [{"step": 2**53, "text": "\x00\u202e</script>"}, {"text": "a"}],
}

MODELS = {
    "one character": lambda: make(text="a", hidden=1, embedding=1),
    "overflowing table": lambda: huge(make(text="ab\n", cell="elman", inputs="one-hot", cell_activation="relu")),
    "overflowing scalar": lambda: huge(make(text="ab\n", cell="gru", inputs="scalar")),
    "outputs as logits": lambda: make(text="abc", hidden=3, head="logits"),
    "bytes": lambda: huge(make(vocabulary=Vocabulary.of_bytes(), hidden=4)),
    "absurd history": lambda: replace(make(text="abc", hidden=4), training=ABSURD),
    "longest window": lambda: replace(make(text="ab\n", hidden=2, embedding=1), training={"window": 4096}),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_degenerate_model_gets_a_report(tmp_path, name):
    MODELS[name]().save(tmp_path / "m.safetensors")
    model = load(tmp_path / "m.safetensors")
    text = b"ab\nab" * 9 if model.vocabulary.units == "bytes" else "ab\nab" * 9
    sha256 = str(model.trained_on["sha256"])
    corpus = Corpus("t.txt", (text,), sha256, ())
    page = report(model, "m.safetensors", corpus)
    assert page.startswith("<!doctype html>")
    assert "</html>" in page
    assert "\x1b" not in page
    assert page.count("</script>") == page.count("<script")
    svg = page.partition('<svg class="map"')[2].partition("</svg>")[0]
    assert svg.count("<text") == model.vocabulary.size
    assert 'x="nan' not in svg
    assert 'y="nan' not in svg


def test_a_longer_window_means_fewer_samples():
    model = make(text="ab\n", hidden=2, embedding=1)
    lengths = []
    for window in (10, 100, 4096):
        texts, _ = report_module._samples_and_speed(replace(model, training={"window": window}))
        lengths.append(sum(map(len, texts)))
    assert lengths == [4800, 2000, 60]
