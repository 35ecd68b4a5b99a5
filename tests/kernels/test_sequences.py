"""One table of cells and activations drives all of these."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

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
]
SHAPES = [(1, 1, 1), (33, 3, 5)]  # hidden, lanes, time


every_variant = pytest.mark.parametrize("variant", VARIANTS, ids="-".join)


def make(variant, hidden, lanes, time, dtype=np.float32, seed=0):
    """Returns a cell with random biases, projected inputs, a carry and resets."""
    rng = np.random.default_rng(seed)

    def draw(like):
        scale = 1 / np.sqrt(hidden) if like.ndim == 2 else 0.5  # so that a ReLU does not explode
        return jnp.asarray((rng.normal(size=like.shape) * scale).astype(dtype))

    name, gates, candidate = variant
    cell = jax.tree.map(draw, CELLS[name].init(2, hidden, jax.random.key(0), gates, candidate))
    projected = draw(np.zeros((time, lanes, cell.bias.shape[0])))
    carry = jax.tree.map(draw, cell.zero_carry(lanes))
    return cell, projected, carry, jnp.asarray(rng.random((time, lanes)) < 0.3)


@every_variant
@pytest.mark.parametrize(("hidden", "lanes", "time"), SHAPES)
@pytest.mark.usefixtures("kernels")
def test_agrees_with_numpy_in_float64(variant, hidden, lanes, time):
    cell, projected, carry, resets = make(variant, hidden, lanes, time)
    outputs, last = cell.sequence(projected, carry, resets)
    step_once = CELL_STEPS[variant[0]]
    weights = jax.tree.map(lambda weight: np.asarray(weight, np.float64), cell)
    for lane in range(lanes):
        state = [np.asarray(part[lane], np.float64) for part in jax.tree.leaves(carry)]
        for step in range(time):
            if resets[step, lane]:
                state = [np.zeros(hidden) for _ in state]
            state = step_once(np.asarray(projected[step, lane], np.float64), state, weights)
            np.testing.assert_allclose(outputs[step, lane], state[0], rtol=1e-5, atol=1e-5)
        for got, wanted in zip(jax.tree.leaves(last), state, strict=True):
            np.testing.assert_allclose(got[lane], wanted, rtol=1e-5, atol=1e-5)


@every_variant
@pytest.mark.parametrize("time", [4, 9])  # unrolled, and a loop
def test_gradient_agrees_with_finite_differences_in_float64(variant, time):
    with jax.enable_x64(True):
        *arguments, resets = make(variant, 5, 3, time, np.float64)

        def of_arrays(cell, projected, carry):
            # check_grads gives NumPy arrays.
            cell, projected, carry = jax.tree.map(jnp.asarray, (cell, projected, carry))
            outputs, last = cell.sequence(projected, carry, resets)
            weights = jnp.cos(jnp.arange(outputs.size)).reshape(outputs.shape)
            return (outputs * weights).sum() + sum((part**2).sum() for part in jax.tree.leaves(last))

        check_grads(of_arrays, arguments, order=1, modes=["rev"], atol=1e-7, rtol=1e-7, eps=1e-5)


@every_variant
@pytest.mark.usefixtures("kernels")
def test_two_short_unrolls_are_one_long(variant):
    cell, projected, carry, resets = make(variant, 7, 3, 20)  # long enough not to be unrolled
    whole, last = cell.sequence(projected, carry, resets)
    first, middle = cell.sequence(projected[:9], carry, resets[:9])
    second, end = cell.sequence(projected[9:], middle, resets[9:])
    np.testing.assert_array_equal(whole, jnp.concatenate([first, second]))
    for a, b in zip(jax.tree.leaves(last), jax.tree.leaves(end), strict=True):
        np.testing.assert_array_equal(a, b)


@every_variant
@pytest.mark.usefixtures("kernels")
def test_compiled_agrees_with_eager(variant):
    cell, *arguments = make(variant, 33, 2, 5)
    eager, _ = cell.sequence(*arguments)
    compiled, _ = jax.jit(lambda cell, *arguments: cell.sequence(*arguments))(cell, *arguments)
    np.testing.assert_allclose(compiled, eager, rtol=1e-6, atol=1e-6)


@every_variant
@pytest.mark.usefixtures("kernels")
def test_a_reset_clears_even_a_state_that_is_no_number(variant):
    cell, projected, carry, _ = make(variant, 4, 2, 3)
    broken = jax.tree.map(lambda state: state.at[0].set(jnp.nan), carry)
    resets = jnp.array([[False, False], [True, False], [False, False]])
    outputs, _ = cell.sequence(projected, broken, resets)
    assert jnp.isnan(outputs[0, 0]).any()
    assert jnp.isfinite(outputs[1:, 0]).all()
    assert jnp.isfinite(outputs[:, 1]).all()
