"""Results on a GPU. The tests are skipped without one."""

import jax
import numpy as np
import pytest

import charloom
from charloom.kernels import kernels_in_use
from tests.reference import NumpyNetwork

pytestmark = pytest.mark.skipif(jax.default_backend() != "gpu", reason="no GPU here")

TEXT = "the quick brown fox\njumps over the lazy dog\n" * 60
SHAPE = {"hidden": 64, "embedding": 8, "batch_size": 4, "sequence_length": 16, "steps": 40, "seed": 3}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two models with the same seed, both trained on the GPU."""
    book = tmp_path_factory.mktemp("gpu") / "book.txt"
    book.write_text(TEXT)
    return [charloom.train(book, **SHAPE) for _ in range(2)]


def test_training_uses_the_reference():
    assert kernels_in_use().name == "reference"


def test_the_same_seed_gives_the_same_weights(trained):
    first, second = (jax.tree.leaves(model.network) for model in trained)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_scores_agree_with_float64(trained):
    model, text = trained[0], TEXT[:300]
    wanted = NumpyNetwork(model.network).nats(model.vocabulary.encode(text)).mean()
    assert model.score(text).nats_per_char == pytest.approx(wanted, abs=2e-5)


def test_text_is_sampled_on_the_cpu_independently_of_other_texts(trained):
    model = trained[0]
    assert model.generate("the", 200, seed=1) == model.generate("the", 200, seed=1)
    assert len(model.generate("the", 200, seed=1)) == 203
