import jax
import numpy as np
import pytest

from charloom.data import ContiguousBatches, TokenStream
from charloom.errors import ModelFileError
from charloom.model import TextModel, load
from charloom.models import Network
from charloom.runs.checkpoint import read_progress, read_state, write_checkpoint
from charloom.settings import NetworkSettings
from charloom.text import Vocabulary
from charloom.training import StepRule, Trainer, initial_state


def make_state(hidden=8, trained=True):
    rule = StepRule()
    network = Network.init(NetworkSettings(hidden=hidden, embedding=4), 5, 0, np.random.default_rng(0))
    batches = ContiguousBatches(TokenStream.from_documents([np.arange(40) % 5]), 2, 4)
    trainer = Trainer(initial_state(network, 2, rule), batches, rule, jax.random.key(1))
    if trained:
        while trainer.step < 3:
            trainer.dispatch(3, lambda first, count: np.full(count, 0.01, np.float32))
    return trainer.state


def test_a_state_survives_writing_and_reading(tmp_path):
    state = make_state()
    write_checkpoint(tmp_path / "a.safetensors", state, {"epoch": 3})
    back = read_state(tmp_path / "a.safetensors", make_state(trained=False))
    assert read_progress(tmp_path / "a.safetensors") == {"epoch": 3}
    for got, wanted in zip(jax.tree.leaves(back), jax.tree.leaves(state), strict=True):
        assert got.dtype == wanted.dtype
        np.testing.assert_array_equal(got, wanted)
    assert int(back.optimizer.count) == 3


def test_damaged_files_and_checkpoints_of_other_models_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    write_checkpoint(path, make_state(), {})
    with pytest.raises(ModelFileError, match=r"'carry.0.cell' is float32 of shape \(2, 8\)"):
        read_state(path, make_state(hidden=9))
    path.write_bytes(path.read_bytes()[:500])
    for read in (read_progress, lambda path: read_state(path, make_state())):
        with pytest.raises(ModelFileError, match="damaged") as caught:
            read(path)
        assert str(path) in str(caught.value)
        with pytest.raises(ModelFileError, match="cannot read"):
            read(tmp_path / "missing.safetensors")


def test_a_checkpoint_is_not_a_model_and_a_model_is_not_a_checkpoint(tmp_path):
    state = make_state()
    write_checkpoint(tmp_path / "a.safetensors", state, {})
    with pytest.raises(ModelFileError, match="a training checkpoint, not a model"):
        load(tmp_path / "a.safetensors")
    model = TextModel(state.network, Vocabulary.of_texts(["\nabcd"]), NetworkSettings(hidden=8, embedding=4))
    model.save(tmp_path / "b.safetensors")
    with pytest.raises(ModelFileError, match="not a checkpoint that this version can resume from"):
        read_progress(tmp_path / "b.safetensors")
