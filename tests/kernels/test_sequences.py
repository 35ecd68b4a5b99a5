"""Tests of all cells and activations, from one table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from charloom.kernels import Features, Rows
from charloom.models import CELLS
from tests.reference import CELL_STEPS

VARIANTS = [
    ("lstm", "sigmoid", "tanh"),
    ("lstm", "hard_sigmoid", "tanh"),
    ("lstm", "sigmoid", "relu"),
    ("lstm", "hard_sigmoid", "softmax"),
    ("gru", "sigmoid", "tanh"),
    ("gru", "hard_sigmoid", "relu"),
    ("gru", "sigmoid", "softmax"),
    ("elman", "sigmoid", "tanh"),
    ("elman", "sigmoid", "relu"),
    ("elman", "sigmoid", "softmax"),
    ("mingru", "sigmoid", "tanh"),
    ("mingru", "hard_sigmoid", "tanh"),
]
FEATURES = 3
SHAPES = [(1, 1, 1), (33, 3, 5)]  # hidden, rows, time


every_variant = pytest.mark.parametrize("variant", VARIANTS, ids="-".join)


def make(variant, hidden, batch_size, time, dtype=np.float32, seed=0):
    """Returns a cell with random biases, features for it to read, a carry and resets."""
    rng = np.random.default_rng(seed)

    def draw(like):
        scale = 1 / np.sqrt(hidden) if like.ndim == 2 else 0.5  # so that a ReLU does not overflow
        return jnp.asarray((rng.normal(size=like.shape) * scale).astype(dtype))

    name, gates, candidate = variant
    cell = jax.tree.map(draw, CELLS[name].init(FEATURES, hidden, np.random.default_rng(0), gates, candidate))
    features = jnp.asarray(rng.normal(size=(time, batch_size, FEATURES)).astype(dtype))
    carry = jax.tree.map(draw, cell.zero_carry(batch_size))
    return cell, features, carry, jnp.asarray(rng.random((time, batch_size)) < 0.3)


def run(cell, features, carry, resets):
    return cell.sequence(cell.features(features), carry, resets)


def test_row_lookup_by_index_and_by_product_agree_with_gradients():
    rng = np.random.default_rng(0)
    ids = jnp.asarray(rng.integers(0, 7, (5, 3)), jnp.int32)
    table, weights = (jnp.asarray(rng.normal(size=shape).astype(np.float32)) for shape in ((7, 4), (5, 3, 4)))

    def weighted(table, rows_of):
        rows = rows_of(Rows(ids, table))
        return (rows * weights).sum(), rows

    (_, gathered), summed = jax.value_and_grad(weighted, has_aux=True)(table, Rows.gathered)
    (_, multiplied), of_products = jax.value_and_grad(weighted, has_aux=True)(table, Rows.multiplied)
    np.testing.assert_array_equal(gathered, np.asarray(table)[np.asarray(ids)])
    np.testing.assert_array_equal(multiplied, gathered)
    np.testing.assert_allclose(of_products, summed, rtol=1e-6)


@every_variant
@pytest.mark.parametrize(("hidden", "batch_size", "time"), SHAPES)
@pytest.mark.usefixtures("kernels")
def test_sequence_agrees_with_numpy_in_float64(variant, hidden, batch_size, time):
    cell, features, carry, resets = make(variant, hidden, batch_size, time)
    outputs, last = run(cell, features, carry, resets)
    step_once = CELL_STEPS[variant[0]]
    weights = jax.tree.map(lambda weight: np.asarray(weight, np.float64), cell)
    projected = np.asarray(features, np.float64) @ weights.kernel + weights.bias
    for row in range(batch_size):
        state = [np.asarray(leaf[row], np.float64) for leaf in jax.tree.leaves(carry)]
        for step in range(time):
            if resets[step, row]:
                state = [np.zeros(hidden) for _ in state]
            state = step_once(projected[step, row], state, weights)
            np.testing.assert_allclose(outputs[step, row], state[0], rtol=1e-5, atol=1e-5)
        for got, wanted in zip(jax.tree.leaves(last), state, strict=True):
            np.testing.assert_allclose(got[row], wanted, rtol=1e-5, atol=1e-5)


@every_variant
@pytest.mark.parametrize("time", [4, 9])  # an unrolled loop, and a loop
def test_gradients_agree_with_finite_differences_in_float64(variant, time):
    with jax.enable_x64(True):
        *arguments, resets = make(variant, 5, 3, time, np.float64)

        def of_arrays(cell, features, carry):
            # check_grads passes NumPy arrays.
            cell, features, carry = jax.tree.map(jnp.asarray, (cell, features, carry))
            outputs, last = run(cell, features, carry, resets)
            weights = jnp.cos(jnp.arange(outputs.size)).reshape(outputs.shape)
            return (outputs * weights).sum() + sum((state**2).sum() for state in jax.tree.leaves(last))

        check_grads(of_arrays, arguments, order=1, modes=["rev"], atol=1e-7, rtol=1e-7, eps=1e-5)


@every_variant
@pytest.mark.usefixtures("kernels")
def test_two_short_sequences_equal_one_long_sequence(variant):
    cell, features, carry, resets = make(variant, 7, 3, 20)  # long enough not to be unrolled
    ids = jnp.arange(60, dtype=jnp.int32).reshape(20, 3)
    table = cell.project(features).reshape(60, -1)  # projected once: XLA's products depend on their shape
    whole, last = cell.sequence(Rows(ids, table), carry, resets)
    first, middle = cell.sequence(Rows(ids[:9], table), carry, resets[:9])
    second, end = cell.sequence(Rows(ids[9:], table), middle, resets[9:])
    np.testing.assert_array_equal(whole, jnp.concatenate([first, second]))
    for a, b in zip(jax.tree.leaves(last), jax.tree.leaves(end), strict=True):
        np.testing.assert_array_equal(a, b)


@every_variant
@pytest.mark.usefixtures("kernels")
def test_compiled_agrees_with_eager(variant):
    cell, *arguments = make(variant, 33, 2, 5)
    eager, _ = run(cell, *arguments)
    compiled, _ = jax.jit(run)(cell, *arguments)
    np.testing.assert_allclose(compiled, eager, rtol=1e-6, atol=1e-6)


@every_variant
@pytest.mark.usefixtures("kernels")
def test_a_reset_also_clears_nan_states(variant):
    cell, features, carry, _ = make(variant, 4, 2, 3)
    broken = jax.tree.map(lambda state: state.at[0].set(jnp.nan), carry)
    resets = jnp.array([[False, False], [True, False], [False, False]])
    outputs, _ = run(cell, features, broken, resets)
    assert jnp.isnan(outputs[0, 0]).any()
    assert jnp.isfinite(outputs[1:, 0]).all()
    assert jnp.isfinite(outputs[:, 1]).all()


@every_variant
@pytest.mark.usefixtures("kernels")
def test_table_rows_equal_projected_inputs(variant):
    cell, _, carry, resets = make(variant, 33, 3, 5)
    rng = np.random.default_rng(3)
    one_hot_kernel = jnp.asarray(rng.normal(size=(4, cell.bias.shape[0])).astype(np.float32))
    rows = jnp.asarray(rng.integers(0, 4, (5, 3)), jnp.int32)

    def loss(kernel, as_rows):
        one_hot = jax.nn.one_hot(rows, 4)
        inputs = Rows(rows, kernel) if as_rows else Features(one_hot, kernel, jnp.zeros(kernel.shape[1]))
        outputs, _ = cell.sequence(inputs, carry, resets)
        return jnp.sum(outputs**2), outputs

    (_, looked_up), of_table = jax.value_and_grad(loss, has_aux=True)(one_hot_kernel, True)
    (_, multiplied), of_kernel = jax.value_and_grad(loss, has_aux=True)(one_hot_kernel, False)
    np.testing.assert_allclose(looked_up, multiplied, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(of_table, of_kernel, rtol=1e-4, atol=1e-5)
