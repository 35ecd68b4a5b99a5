import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from charloom.kernels import LSTMCarry, lstm_sequence, lstm_step
from tests.reference import lstm_step as numpy_step

SHAPES = [(1, 1, 1), (7, 3, 5), (33, 2, 8), (128, 16, 3)]  # hidden, lanes, time


def make(hidden, lanes, time, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape).astype(dtype) * 0.5)  # noqa: E731
    carry = LSTMCarry(draw(lanes, hidden), draw(lanes, hidden))
    resets = jnp.asarray(rng.random((time, lanes)) < 0.3)
    return draw(time, lanes, 4 * hidden), draw(hidden, 4 * hidden), carry, resets


@pytest.mark.parametrize(("hidden", "lanes", "time"), SHAPES)
def test_agrees_with_numpy_in_float64(hidden, lanes, time):
    projected, recurrent, carry, resets = make(hidden, lanes, time)
    outputs, last = lstm_sequence(projected, recurrent, carry, resets)
    identity = np.eye(4 * hidden)
    for lane in range(lanes):
        h, c = (np.asarray(state[lane], np.float64) for state in carry)
        for step in range(time):
            if resets[step, lane]:
                h, c = np.zeros(hidden), np.zeros(hidden)
            x = np.asarray(projected[step, lane], np.float64)
            h, c = numpy_step(x, h, c, identity, np.asarray(recurrent, np.float64), np.zeros(4 * hidden))
            np.testing.assert_allclose(outputs[step, lane], h, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(last.cell[lane], c, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(last.hidden[lane], h, rtol=1e-5, atol=1e-5)


def test_gradient_agrees_with_finite_differences_in_float64():
    with jax.enable_x64(True):
        arguments = make(5, 3, 6, np.float64)
        weights = jnp.asarray(np.random.default_rng(1).normal(size=(6, 3, 5)))

        def objective(projected, recurrent, carry):
            # check_grads gives NumPy arrays.
            outputs, last = lstm_sequence(*jax.tree.map(jnp.asarray, (projected, recurrent, carry)), arguments[3])
            return (outputs * weights).sum() + (last.cell**2).sum() + last.hidden.sum()

        check_grads(objective, arguments[:3], order=1, modes=["rev"], atol=1e-7, rtol=1e-7)


def test_gradient_agrees_with_differentiating_the_steps():
    projected, recurrent, carry, resets = make(33, 4, 9)

    def by_steps(projected, recurrent, carry):
        outputs = []
        for step in range(9):
            carry = LSTMCarry(*(jnp.where(resets[step][:, None], 0, state) for state in carry))
            carry = lstm_step(projected[step], recurrent, carry)
            outputs.append(carry.hidden)
        return (jnp.stack(outputs) ** 2).sum() + carry.cell.sum()

    def by_sequence(projected, recurrent, carry):
        outputs, last = lstm_sequence(projected, recurrent, carry, resets)
        return (outputs**2).sum() + last.cell.sum()

    wanted = jax.grad(by_steps, (0, 1, 2))(projected, recurrent, carry)
    got = jax.grad(by_sequence, (0, 1, 2))(projected, recurrent, carry)
    for a, b in zip(jax.tree.leaves(wanted), jax.tree.leaves(got), strict=True):
        np.testing.assert_allclose(b, a, rtol=2e-4, atol=1e-5)


def test_two_short_unrolls_are_one_long():
    projected, recurrent, carry, resets = make(7, 3, 10)
    whole, last = lstm_sequence(projected, recurrent, carry, resets)
    first, middle = lstm_sequence(projected[:4], recurrent, carry, resets[:4])
    second, end = lstm_sequence(projected[4:], recurrent, middle, resets[4:])
    np.testing.assert_array_equal(whole, jnp.concatenate([first, second]))
    np.testing.assert_array_equal(last.cell, end.cell)


def test_compiled_agrees_with_eager():
    arguments = make(33, 2, 5)
    eager, _ = lstm_sequence(*arguments)
    compiled, _ = jax.jit(lstm_sequence)(*arguments)
    np.testing.assert_allclose(compiled, eager, rtol=1e-6, atol=1e-6)


def test_a_reset_clears_even_a_state_that_is_no_number():
    projected, recurrent, carry, _ = make(4, 2, 3)
    broken = LSTMCarry(carry.hidden.at[0].set(jnp.nan), carry.cell)
    resets = jnp.array([[False, False], [True, False], [False, False]])
    outputs, _ = lstm_sequence(projected, recurrent, broken, resets)
    assert jnp.isnan(outputs[0, 0]).all()
    assert jnp.isfinite(outputs[1:, 0]).all()
    assert jnp.isfinite(outputs[:, 1]).all()
