"""The precisions of a native generator's weights. driver.cc compares each step with slow loops."""

import numpy as np
import pytest

from charloom.kernels import Activations, Generator, LayerWeights

pytestmark = pytest.mark.usefixtures("native_library")

HIDDEN, VOCAB = 70, 20


def weights(cell="lstm", layers=2, cell_activation="tanh"):
    rng = np.random.default_rng(0)
    gates = {"lstm": 4, "gru": 3, "elman": 1}[cell] * HIDDEN

    def draw(*shape):
        return (rng.normal(size=shape) / np.sqrt(shape[0] if len(shape) > 1 else 4)).astype(np.float32)

    made = [
        LayerWeights(
            draw(HIDDEN, gates),
            draw(gates),
            draw(HIDDEN, gates),
            draw(gates) if cell == "gru" else None,
            Activations("sigmoid", cell_activation),
        )
        for _ in range(layers)
    ]
    return cell, draw(VOCAB, gates), made, (draw(HIDDEN, VOCAB), draw(VOCAB))


def logits_of(generator, texts=5, time=12):
    state = generator.begin(texts)
    rows = np.random.default_rng(1).integers(0, VOCAB, (texts, time)).astype(np.int32)
    generator.run(state, rows)
    return state.logits


@pytest.mark.parametrize("cell", ["lstm", "gru", "elman"])
def test_rounded_weights_change_logits_a_little(cell):
    full = logits_of(Generator(*weights(cell)))
    for precision, apart in (("bfloat16", 0.03), ("int8", 0.1)):
        got = logits_of(Generator(*weights(cell), precision))
        assert 0 < np.abs(got - full).max() < apart * np.abs(full).max()


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_a_text_does_not_depend_on_its_batch(precision):
    generator = Generator(*weights(), precision)
    together = logits_of(generator)
    state = generator.begin(1)
    rows = np.random.default_rng(1).integers(0, VOCAB, (5, 12)).astype(np.int32)
    for text in range(5):
        state = generator.begin(1)
        generator.run(state, rows[text : text + 1].copy())
        np.testing.assert_array_equal(state.logits[0], together[text])


def test_columns_of_zeros_and_of_the_largest_weights_have_bytes():
    cell, table, layers, (kernel, bias) = weights("elman", 1)
    kernel[:, 0], kernel[:, 1] = 0, np.float32(3e38)
    logits = logits_of(Generator(cell, table, layers, (kernel, bias), "int8"))
    np.testing.assert_array_equal(logits[:, 0], bias[0])
    assert np.isfinite(logits[:, 2:]).all()
    assert (np.abs(logits[:, 1]) > 1e30).all()


@pytest.mark.parametrize("wrong", [np.inf, np.nan])
def test_bytes_of_a_weight_that_is_not_finite_are_refused(wrong):
    cell, table, layers, head = weights("gru")
    layers[1].recurrent_kernel[3, 5] = wrong
    Generator(cell, table, layers, head)
    with pytest.raises(ValueError, match="a weight is not finite"):
        Generator(cell, table, layers, head, "int8")


def test_bytes_of_states_without_bounds_are_refused():
    with pytest.raises(ValueError, match="between -1 and 1"):
        Generator(*weights("elman", cell_activation="relu"), "int8")
