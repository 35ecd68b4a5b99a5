import jax
import jax.numpy as jnp
import numpy as np

from charloom.models import ElmanCell, Network
from charloom.settings import NetworkSettings
from charloom.studies.tutorial_models import CharacterLoop, RecurrentLayer, ThreeCharacters


def ids_of(time, batch_size=4, seed=0):
    return jnp.asarray(np.random.default_rng(seed).integers(0, 57, (time, batch_size)), jnp.int32)


def logits_of(model, ids):
    logits, carry = model(ids, jnp.zeros(ids.shape, bool), model.zero_carry(ids.shape[1]))
    assert carry == ()
    return logits


def numpy_logits(model, ids):
    """Returns the logits of the tutorial's network, implemented in NumPy from its description."""
    weights = jax.tree.map(lambda weight: np.asarray(weight, np.float64), model)
    read = np.maximum(weights.embedding[ids] @ weights.read.kernel + weights.read.bias, 0)
    hidden = np.zeros_like(read[0])
    for character in read:
        hidden = np.tanh((hidden + character) @ weights.mix.kernel + weights.mix.bias)
    return hidden @ weights.head.kernel + weights.head.bias


def test_three_characters_give_the_logits_of_the_loop_and_of_the_tutorial():
    three = ThreeCharacters.init(57, 56, np.random.default_rng(0))
    loop = CharacterLoop(three.embedding, three.read, three.mix, three.head)
    ids = ids_of(3)
    np.testing.assert_allclose(logits_of(three, ids), logits_of(loop, ids), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(logits_of(three, ids)[0], numpy_logits(three, ids), rtol=1e-5, atol=1e-5)


def test_the_loop_reads_any_number_of_characters():
    loop = CharacterLoop.init(57, 57, np.random.default_rng(1))
    for time in (1, 8):
        np.testing.assert_allclose(
            logits_of(loop, ids_of(time))[0], numpy_logits(loop, ids_of(time)), rtol=1e-5, atol=1e-5
        )


def test_the_published_numbers_of_parameters():
    assert ThreeCharacters.init(57, 56, np.random.default_rng(0)).parameters == 93_586
    assert CharacterLoop.init(57, 57, np.random.default_rng(0)).parameters == 93_843


def test_the_recurrent_layer_equals_the_network_that_is_trained():
    layer = RecurrentLayer.init(57, np.random.default_rng(2))
    network = Network.init(NetworkSettings(cell="elman", embedding=42, hidden=256), 57, 0, np.random.default_rng(3))
    cell = ElmanCell(layer.kernel, layer.recurrent_kernel, layer.bias, "sigmoid", "tanh")
    network = Network(layer.embedding, (cell,), layer.head, "embedding", 57, 0)
    assert network.parameters == sum(leaf.size for leaf in jax.tree.leaves(layer)) == 93_587
    state, carry = jnp.zeros((4, 256)), network.zero_carry(4)
    for seed in (0, 1):  # the state is carried from one call to the next
        ids = ids_of(8, seed=seed)
        wanted, state = layer(ids, state)
        logits, carry = network(ids, jnp.zeros(ids.shape, bool), carry)
        np.testing.assert_allclose(logits, wanted, rtol=1e-5, atol=1e-5)
