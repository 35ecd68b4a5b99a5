"""The precision of a run: what "auto" takes, what is stored, and what training in bfloat16 gives."""

from dataclasses import replace

import jax
import numpy as np
import pytest

import charloom as cl
from charloom.runs import precision as precision_of_run
from charloom.runs.precision import with_precision
from charloom.runs.repeating import repeated_training
from charloom.settings import NetworkSettings, TrainingSettings
from charloom.training import Notice

TEXT = "a man a plan a canal panama\n" * 100
QUICK = {"hidden": 24, "embedding": 8, "batch_size": 4, "sequence_length": 16}


@pytest.fixture
def book(tmp_path):
    (tmp_path / "book.txt").write_text(TEXT)
    return tmp_path / "book.txt"


@pytest.mark.parametrize(
    ("instructions", "network", "taken"),
    [
        ("AMX", {}, "bfloat16"),
        ("AVX512_BF16", {"cell": "gru"}, "bfloat16"),
        (None, {}, "float32"),
        ("AMX", {"cell": "mingru"}, "float32"),
        ("AMX", {"last_cell_activation": "softmax"}, "float32"),
    ],
)
def test_auto_takes_bfloat16_where_it_is_fast(monkeypatch, instructions, network, taken):
    monkeypatch.setattr(precision_of_run, "bfloat16_instructions", lambda: instructions)
    settings = NetworkSettings(**network)
    assert with_precision(TrainingSettings(), settings) == (TrainingSettings(precision=taken), [])
    float32 = TrainingSettings(precision="float32")
    assert with_precision(float32, settings) == (float32, [])
    bfloat16 = TrainingSettings(precision="bfloat16")
    training, notices = with_precision(bfloat16, settings)
    assert training == bfloat16
    assert len(notices) == (taken == "float32")


@pytest.mark.usefixtures("kernels")
def test_a_model_says_its_precision_and_learns(book, tmp_path):
    losses = {}
    for precision in ("float32", "bfloat16"):
        notices = []
        model = cl.train(
            book,
            out=tmp_path / f"{precision}.safetensors",
            steps=300,
            learning_rate=0.01,
            precision=precision,
            on_event=lambda event, notices=notices: notices.append(event) if isinstance(event, Notice) else None,
            **QUICK,
        )
        assert model.training["precision"] == precision
        assert cl.load(tmp_path / f"{precision}.safetensors").training["precision"] == precision
        assert {leaf.dtype for leaf in jax.tree.leaves(model.network)} == {np.dtype(np.float32)}
        losses[precision] = model.training["validation_nats_per_char"]
    assert losses["float32"] != losses["bfloat16"]
    assert max(losses.values()) < 0.2


def test_auto_is_stored_as_what_it_took(book):
    model = cl.train(book, steps=1, **QUICK)
    assert model.training["precision"] in ("float32", "bfloat16")


def test_a_model_of_an_earlier_version_is_repeated_in_float32(book):
    model = cl.train(book, steps=1, precision="bfloat16", **QUICK)
    earlier = {name: value for name, value in model.training.items() if name != "precision"}
    assert repeated_training(model, "book").precision == "bfloat16"
    assert repeated_training(replace(model, training=earlier), "book").precision == "float32"
