import jax
import jax.numpy as jnp
import numpy as np
import pytest

from charloom.errors import SettingError
from charloom.models import CELLS, Network, cross_entropy, draw_dropout_masks, sequence_totals
from charloom.settings import NetworkSettings
from tests.reference import NumpyNetwork


def make(layers=2, start_id=0, vocab=9, hidden=6, embedding=5, seed=0, **settings):
    settings = NetworkSettings(layers=layers, hidden=hidden, embedding=embedding, **settings)
    return Network.init(settings, vocab, start_id, np.random.default_rng(seed))


NETWORKS = {
    "one layer": {"layers": 1},
    "three layers": {"layers": 3},
    "gru": {"cell": "gru"},
    "elman": {"cell": "elman"},
    "mingru": {"cell": "mingru"},
    "mingru, one layer": {"cell": "mingru", "layers": 1},
    "mingru, three layers": {"cell": "mingru", "layers": 3},
    "mingru, one-hot": {"cell": "mingru", "inputs": "one-hot"},
    "mingru, scalar": {"cell": "mingru", "inputs": "scalar"},
    "mingru, hard gates": {"cell": "mingru", "gate_activation": "hard_sigmoid"},
    "mingru, logits": {"cell": "mingru", "hidden": 9, "head": "logits"},
    "one-hot": {"inputs": "one-hot"},
    "scalar": {"inputs": "scalar"},
    "hard gates": {"gate_activation": "hard_sigmoid"},
    "relu logits": {"inputs": "one-hot", "hidden": 9, "last_cell_activation": "relu", "head": "logits"},
    "softmax cell": {"inputs": "one-hot", "hidden": 9, "last_cell_activation": "softmax", "head": "probabilities"},
}


@pytest.mark.parametrize("settings", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("start_id", [4, None])
def test_logits_agree_with_numpy(settings, start_id):
    network = jax.tree.map(
        lambda weight: weight * 3, make(**settings, start_id=start_id)
    )  # large weights, so that activations saturate
    ids = np.random.default_rng(0).integers(0, 9, (12, 2)).astype(np.int32)
    resets = np.zeros((12, 2), bool)
    resets[0] = True
    resets[5, 1] = True
    logits, _ = network(jnp.asarray(ids), jnp.asarray(resets), network.zero_carry(2))
    last, _ = network(jnp.asarray(ids), jnp.asarray(resets), network.zero_carry(2), last_only=True)
    np.testing.assert_allclose(last, logits[-1:], rtol=1e-5, atol=1e-6)
    for row in range(2):
        reference = NumpyNetwork(network)
        for time in range(12):
            if resets[time, row]:
                reference.reset()
            wanted = reference.step(None if resets[time, row] else ids[time, row])
            np.testing.assert_allclose(logits[time, row], wanted, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("start_id", [3, None])
def test_single_steps_equal_the_sequence(start_id):
    network = make(2, start_id)
    ids = np.random.default_rng(1).integers(0, 9, (7, 1)).astype(np.int32)
    resets = np.zeros((7, 1), bool)
    resets[0] = True
    logits, last = network(jnp.asarray(ids), jnp.asarray(resets), network.zero_carry(1))
    table, carry = network.projection_table(), network.zero_carry(1)
    for time in range(7):
        row = network.start_row if time == 0 else ids[time, 0]
        step_logits, carry = network.step(table, jnp.array([row], jnp.int32), carry)
        np.testing.assert_allclose(step_logits, logits[time], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(carry[1].cell, last[1].cell, rtol=1e-5, atol=1e-6)


def test_folding_the_embedding_does_not_change_gradients():
    network = make(1, 2)
    ids = jnp.asarray(np.random.default_rng(2).integers(0, 9, (6, 3)), jnp.int32)
    resets = jnp.zeros((6, 3), bool)

    def folded(network):
        logits, _ = network(ids, resets, network.zero_carry(3))
        return cross_entropy(logits, ids).sum()

    def not_folded(network):
        cell = network.cells[0]
        outputs, _ = cell.sequence(cell.features(network.embedding[ids]), cell.zero_carry(3), resets)
        return cross_entropy(network.head(outputs), ids).sum()

    for a, b in zip(*(jax.tree.leaves(jax.grad(f)(network)) for f in (folded, not_folded)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_parameters_are_counted():
    # 57 x 42, 4 x 512 x (42 + 512 + 1), 512 x 57 + 57: the published LSTM's 1,168,275.
    settings = NetworkSettings(layers=1, hidden=512, embedding=42)
    shapes = jax.eval_shape(lambda: Network.init(settings, 57, 0, np.random.default_rng(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 1_168_275
    # 57 x 42, 256 x (42 + 256 + 1), 256 x 57 + 57: the published SimpleRNN's 93,587.
    assert make(1, vocab=57, embedding=42, hidden=256, cell="elman").parameters == 93_587
    # Two layers of 2 x 6 x (5 + 1) and 2 x 6 x (6 + 1): a minGRU has no recurrent kernel.
    assert make(2, cell="mingru").parameters == 9 * 5 + 2 * 6 * (5 + 1 + 6 + 1) + 6 * 9 + 9
    # Two layers of 4 x 62 x (62 + 62 + 1), whose outputs are the logits.
    assert make(2, vocab=62, hidden=62, inputs="one-hot", head="logits").parameters == 62_000
    assert make(1, 0, vocab=3, hidden=2, embedding=2).parameters == 3 * 2 + 4 * 2 * (2 + 2 + 1) + 2 * 3 + 3


@pytest.mark.parametrize(("name", "gates"), [("lstm", 4), ("gru", 3), ("elman", 1), ("mingru", 2)])
def test_cell_weights_are_initialized_as_in_keras(name, gates):
    cell = CELLS[name].init(20, 32, np.random.default_rng(3))
    limit = np.sqrt(6 / (20 + gates * 32))
    assert float(jnp.abs(cell.kernel).max()) <= limit
    assert float(cell.kernel.std()) == pytest.approx(limit / np.sqrt(3), rel=0.1)
    if name != "mingru":
        np.testing.assert_allclose(cell.recurrent_kernel @ cell.recurrent_kernel.T, np.eye(32), atol=1e-5)
    biases = np.zeros(gates * 32)
    if name == "lstm":
        biases[32:64] = 1
    np.testing.assert_array_equal(cell.bias, biases)


def test_embedding_and_head_are_initialized_as_in_keras():
    embedding = make(vocab=200, embedding=50).embedding
    assert 0.049 < float(jnp.abs(embedding).max()) <= 0.05
    assert float(jnp.abs(make().head.bias).max()) == 0


def test_the_seed_determines_the_weights():
    assert jnp.array_equal(make(seed=1).head.kernel, make(seed=1).head.kernel)
    assert not jnp.array_equal(make(seed=1).head.kernel, make(seed=2).head.kernel)


def test_cross_entropy_agrees_with_numpy_even_for_large_logits():
    logits = np.array([[1e4, 0.0, -1e4], [0.0, 0.0, 0.0], [-3.0, 1.0, 2.0]], np.float32)
    nats = cross_entropy(jnp.asarray(logits), jnp.array([1, 2, 0], jnp.int32))
    np.testing.assert_allclose(nats, [1e4, np.log(3), np.log(np.exp([-3, 1, 2]).sum()) + 3], rtol=1e-6)


def test_a_uniform_model_scores_the_logarithm_of_the_vocabulary_size():
    network = jax.tree.map(jnp.zeros_like, make())
    logits, _ = network(jnp.zeros((4, 2), jnp.int32), jnp.ones((4, 2), bool), network.zero_carry(2))
    np.testing.assert_allclose(cross_entropy(logits, jnp.ones((4, 2), jnp.int32)), np.log(9), rtol=1e-6)


def test_totals_include_only_scored_steps_even_next_to_nan():
    logits = jnp.array([[[0.0, 3.0]], [[jnp.nan, 0.0]], [[0.0, 3.0]]])
    ids = jnp.array([[0], [1], [0], [0]], jnp.int32)  # hit, NaN, miss
    totals = sequence_totals(logits, ids, jnp.array([[True], [False], [True]]))
    assert float(totals.nats) == pytest.approx(2 * np.log(1 + np.exp(3)) - 3, rel=1e-6)
    assert float(totals.correct) == 1
    last = sequence_totals(logits[2:], ids, jnp.array([[True], [False], [True]]))
    assert float(last.nats) == pytest.approx(np.log(1 + np.exp(3)), rel=1e-6)
    assert float(last.correct) == 0


def test_outputs_used_as_logits_must_match_the_vocabulary_size():
    with pytest.raises(SettingError, match="hidden must be 9, the size of the vocabulary"):
        make(hidden=6, head="logits")


def test_dropout_keeps_the_mean_and_is_the_same_for_a_sequence():
    network = make(2, hidden=500)
    masks = draw_dropout_masks(network, 0.4, 20, jax.random.key(0))
    assert masks is not None
    assert [mask.shape for mask in masks] == [(20, 500)] * 2
    for mask in masks:
        assert set(np.unique(mask).tolist()) == {0.0, float(np.float32(1 / 0.6))}
        assert float(mask.mean()) == pytest.approx(1, abs=0.03)
    assert not jnp.array_equal(masks[0], masks[1])
    assert draw_dropout_masks(network, 0.0, 20, jax.random.key(0)) is None


def test_dropped_outputs_do_not_reach_the_logits():
    network = make(1)
    ids, resets = jnp.ones((3, 1), jnp.int32), jnp.zeros((3, 1), bool)
    nothing = (jnp.zeros((1, 6)),)
    logits, _ = network(ids, resets, network.zero_carry(1), nothing)
    np.testing.assert_allclose(logits, jnp.broadcast_to(network.head.bias, logits.shape))


def test_another_seed_gives_other_initial_weights():
    one, same, other = (jax.tree.leaves(make(1, seed=seed)) for seed in (3, 3, 4))
    assert all((a == b).all() for a, b in zip(one, same, strict=True))
    assert not (one[0] == other[0]).any()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_weight_dropout_drops_a_share_and_scales_the_rest(share):
    network = make(2, hidden=120)
    dropped_out = network.with_weight_dropout(share, jax.random.key(3))
    for before, after in zip(network.cells, dropped_out.cells, strict=True):
        before_kernel, after_kernel = np.asarray(before.recurrent_kernel), np.asarray(after.recurrent_kernel)
        kept = after_kernel != 0
        of_256 = round(256 * share)
        assert 1 - kept.mean() == pytest.approx(of_256 / 256, abs=0.01)
        np.testing.assert_allclose(after_kernel[kept], before_kernel[kept] * 256 / (256 - of_256), rtol=1e-6)
        np.testing.assert_array_equal(after.kernel, before.kernel)
    if share == 0.3:
        zeros = [np.asarray(cell.recurrent_kernel) == 0 for cell in dropped_out.cells]
        assert not np.array_equal(*zeros)
        other = network.with_weight_dropout(share, jax.random.key(4))
        assert not np.array_equal(zeros[0], np.asarray(other.cells[0].recurrent_kernel) == 0)


def test_weight_dropout_needs_recurrent_weights():
    with pytest.raises(SettingError, match="weight_dropout applies to recurrent weights; mingru has none"):
        make(cell="mingru").with_weight_dropout(0.1, jax.random.key(0))


def test_dropped_weights_have_no_gradient():
    network = make(1, hidden=20)
    ids = jnp.asarray(np.random.default_rng(0).integers(0, 9, (6, 2)), jnp.int32)

    def loss(network):
        dropped_out = network.with_weight_dropout(0.5, jax.random.key(1))
        return dropped_out(ids, jnp.zeros((6, 2), bool), dropped_out.zero_carry(2))[0].sum()

    gradient = np.asarray(jax.grad(loss)(network).cells[0].recurrent_kernel)
    dropped = np.asarray(network.with_weight_dropout(0.5, jax.random.key(1)).cells[0].recurrent_kernel) == 0
    np.testing.assert_array_equal(gradient == 0, dropped)
