"""Mutated model files are either refused with a one-line error, or load as models that can be shown."""

import json
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charloom.description import metadata, summary
from charloom.errors import ModelFileError
from charloom.model import load
from charloom.report import _training_rows
from charloom.reports.pictures import training_curves
from charloom.text import Vocabulary
from tests.fuzz.values import mutated_tensor_file
from tests.test_model import make

TRAINING = {
    "steps": 30,
    "kept_step": 20,
    "validation_chars": 7,
    "validation_nats_per_char": 1.5,
    "window": 3,
    "learning_rate": 0.01,
    "step_plan": [[0, 10], [5, 30]],
    "history": [
        {"step": step, "train_nats_per_char": 1.5, "validation_nats_per_char": None if step == 2 else 2.5}
        for step in (1, 2, 3)
    ],
    "samples": [{"step": 1, "text": "abc"}],
}


@pytest.fixture(scope="module")
def originals():
    models = make(layers=2), make(vocabulary=Vocabulary.of_bytes()), make(cell="gru", lowercase=True)
    return [replace(model, training=TRAINING).to_bytes() for model in models]


@given(st.integers(0, 2**64 - 1))
@settings(max_examples=150, deadline=None)
def test_a_mutated_model_file_is_refused_in_one_line_or_can_be_shown(originals, tmp_path_factory, seed):
    choose = random.Random(seed)
    path = tmp_path_factory.getbasetemp() / "mutated.safetensors"
    path.write_bytes(mutated_tensor_file(choose.choice(originals), choose))
    problem = ""
    try:
        model = load(path)
    except ModelFileError as error:
        problem = str(error)
    if problem:
        assert problem.isprintable()
        assert len(problem) < 1000
        return
    assert all(len(value) < 3000 for value in summary(model).values())
    assert json.loads(json.dumps(metadata(model)))["cell"] == model.settings.cell
    history = _training_rows(model, "history", {"step", "train_nats_per_char", "validation_nats_per_char"})
    if len(history) > 1 and seed % 8 == 0:
        assert training_curves(history).source.startswith("data:")
