"""cuDNN's LSTM, in whose place stands what JAX checks it against: there is no GPU here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import rnn

from charloom.kernels import Rows, lstm_sequence
from tests.kernels.test_sequences import make


@pytest.fixture
def on_a_gpu(monkeypatch):
    """Lets `lstm_sequence` take JAX's reference of cuDNN's LSTM; returns the shapes that it was called with."""
    called = []
    jax.clear_caches()  # or what was traced before is not traced again

    def lstm(x, h_0, c_0, weights, seq_lengths, input_size, hidden_size, layers, dropout, bidirectional):
        called.append(x.shape)
        unpacked = rnn.unpack_lstm_weights(weights, input_size, hidden_size, layers, bidirectional)
        sizes = input_size, hidden_size, layers, dropout, bidirectional
        return rnn.lstm_ref(x, h_0, c_0, *unpacked, seq_lengths, *sizes)

    monkeypatch.setattr(rnn, "lstm", lstm)
    monkeypatch.setattr(rnn, "gpu_rnn", object())
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setenv("CHARLOOM_KERNELS", "auto")
    return called


def outputs_and_gradients(inputs, kernel, carry, resets):
    def loss(differentiated, kernel, carry):
        taken = inputs._replace(**differentiated)
        outputs, last = lstm_sequence(taken, kernel, carry, resets)
        weights = jnp.cos(jnp.arange(outputs.size)).reshape(outputs.shape)
        return (outputs * weights).sum() + sum((part**2).sum() for part in last), (outputs, last)

    names = [name for name in inputs._fields if name != "ids"]
    differentiated = {name: getattr(inputs, name) for name in names}
    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(differentiated, kernel, carry)


@pytest.mark.parametrize("where", ["nowhere", "at the start", "within"])
@pytest.mark.parametrize("rows", [False, True], ids=["features", "rows"])
def test_agrees_with_the_reference(rows, where, on_a_gpu, monkeypatch):
    cell, features, carry, _ = make(("lstm", "sigmoid", "tanh"), 33, 3, 5)
    inputs = cell.features(features)
    if rows:
        table = jnp.asarray(np.random.default_rng(1).normal(size=(7, 4 * 33)).astype(np.float32))
        inputs = Rows(jnp.asarray(np.random.default_rng(2).integers(0, 7, (5, 3)), jnp.int32), table)
    resets = np.zeros((5, 3), bool)
    if where != "nowhere":
        resets[0 if where == "at the start" else 3, 1] = True
    arguments = inputs, cell.recurrent_kernel, carry, jnp.asarray(resets)
    on_gpu = outputs_and_gradients(*arguments)
    assert on_a_gpu == [(3, 5, 7 if rows else 3)]
    monkeypatch.setenv("CHARLOOM_KERNELS", "reference")
    reference = outputs_and_gradients(*arguments)
    assert len(on_a_gpu) == 1
    for got, wanted in zip(jax.tree.leaves(on_gpu), jax.tree.leaves(reference), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * max(1, float(np.abs(wanted).max())))


@pytest.mark.parametrize("activations", [("hard_sigmoid", "tanh"), ("sigmoid", "relu")], ids="-".join)
def test_other_activations_are_the_references(activations, on_a_gpu):
    cell, features, carry, resets = make(("lstm", *activations), 33, 3, 5)
    lstm_sequence(cell.features(features), cell.recurrent_kernel, carry, resets, *activations)
    assert on_a_gpu == []
