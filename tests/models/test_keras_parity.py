"""Comparison with Keras: logits, optimizer steps and parameter counts from the same weights."""

import os

os.environ["KERAS_BACKEND"] = "jax"

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

from charloom.models import Network
from charloom.settings import NetworkSettings
from charloom.training import StepRule, make_optimizer

LAYERS = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "elman": keras.layers.SimpleRNN}
VOCAB, BATCH_SIZE, TIME = 11, 3, 7


def keras_2_hard_sigmoid(values):
    return keras.ops.clip(0.2 * values + 0.5, 0, 1)


def keras_model(network, stateful):
    """Returns the Keras model with the weights of `network`."""
    gates = {"sigmoid": "sigmoid", "hard_sigmoid": keras_2_hard_sigmoid}
    model = keras.Sequential([keras.Input(batch_shape=(BATCH_SIZE, TIME))])
    model.add(keras.layers.Embedding(*network.embedding.shape))
    for cell in network.cells:
        kind = next(LAYERS[name] for name in LAYERS if type(cell).__name__.lower() == f"{name}cell")
        options = {} if kind is keras.layers.SimpleRNN else {"recurrent_activation": gates[cell.gate_activation]}
        model.add(
            kind(cell.hidden, activation=cell.cell_activation, return_sequences=True, stateful=stateful, **options)
        )
    model.add(keras.layers.Dense(VOCAB))
    model.layers[0].set_weights([network.embedding])
    for layer, cell in zip(model.layers[1:-1], network.cells, strict=True):
        bias = jnp.stack([cell.bias, cell.recurrent_bias]) if hasattr(cell, "recurrent_bias") else cell.bias
        layer.set_weights([cell.kernel, cell.recurrent_kernel, bias])
    model.layers[-1].set_weights([network.head.kernel, network.head.bias])
    return model


def random_network(**settings):
    network = Network.init(NetworkSettings(hidden=20, embedding=6, **settings), VOCAB, None, np.random.default_rng(0))
    keys = iter(jax.random.split(jax.random.key(1), 100))
    return jax.tree.map(lambda weight: 0.5 * jax.random.normal(next(keys), weight.shape), network)


@pytest.mark.parametrize(
    ("settings", "layers", "stateful"),
    [({"cell": cell}, layers, stateful) for cell in LAYERS for layers in (1, 2) for stateful in (False, True)]
    + [
        ({"cell": "lstm", "gate_activation": "hard_sigmoid"}, 2, True),
        ({"cell": "lstm", "cell_activation": "relu"}, 2, True),
        ({"cell": "lstm", "cell_activation": "softmax"}, 2, True),
    ],
)
def test_logits_agree_with_keras(settings, layers, stateful):
    network = random_network(layers=layers, **settings)
    model = keras_model(network, stateful)
    carry = network.zero_carry(BATCH_SIZE)
    ids = np.random.default_rng(0).integers(0, VOCAB, (2, BATCH_SIZE, TIME)).astype(np.int32)
    no_resets = jnp.zeros((TIME, BATCH_SIZE), bool)
    for batch in ids:
        wanted = np.asarray(model(batch))
        logits, after = network(jnp.asarray(batch.T), no_resets, carry)
        np.testing.assert_allclose(np.asarray(logits).swapaxes(0, 1), wanted, rtol=1e-5, atol=1e-5)
        carry = after if stateful else carry


@pytest.mark.parametrize("epsilon", [1e-7, 1e-8])
def test_adam_steps_agree_with_keras(epsilon):
    rng = np.random.default_rng(0)
    weights = rng.normal(size=40).astype(np.float32)
    # Gradients from zero to large. The small ones show where epsilon is added.
    gradients = rng.normal(size=(5, 40)) * 10.0 ** rng.integers(-9, 1, 40)
    gradients[:, 0] = 0

    variable = keras.Variable(weights)
    adam = keras.optimizers.Adam(0.001, epsilon=epsilon)
    optimizer = make_optimizer(StepRule(epsilon=epsilon))
    ours, state = jnp.asarray(weights), optimizer.init(jnp.asarray(weights))
    for gradient in gradients.astype(np.float32):
        adam.apply([jnp.asarray(gradient)], [variable])
        step, state = optimizer.update(jnp.asarray(gradient), state)
        ours = ours - 0.001 * step
        np.testing.assert_allclose(ours, np.asarray(variable.value), rtol=0, atol=1e-6)


def test_parameter_counts_agree_with_keras():
    for cell in LAYERS:
        network = random_network(cell=cell, layers=2)
        assert keras_model(network, False).count_params() == network.parameters
