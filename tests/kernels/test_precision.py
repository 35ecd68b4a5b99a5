"""bfloat16 factors: rounding, products and their gradients, and native kernels next to the reference."""

import dataclasses

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from charloom.kernels import bfloat16_instructions, dense
from charloom.kernels.precision import product, rounded
from tests.kernels.test_native import every_cell
from tests.kernels.test_sequences import make, run

on_the_cpu = pytest.mark.skipif(jax.default_backend() != "cpu", reason="JAX calls native kernels only on the CPU")


def as_bfloat16(values):
    return np.asarray(values, np.float32).astype(ml_dtypes.bfloat16).astype(np.float32)


def test_rounding_is_that_of_another_implementation():
    bits = np.random.default_rng(0).integers(0, 2**32, 100_000, np.uint32)
    ties = (bits & 0xFFFF0000) | 0x8000
    numbers = np.concatenate([bits, ties]).view(np.float32)
    numbers = numbers[np.abs(numbers) >= np.finfo(np.float32).tiny]  # denormal numbers are zero in charloom
    got = jax.jit(lambda x: rounded(x, "bfloat16"))(numbers)
    np.testing.assert_array_equal(got, as_bfloat16(numbers))
    special = jnp.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 3.4e38], jnp.float32)
    np.testing.assert_array_equal(rounded(special, "bfloat16"), as_bfloat16(special))
    np.testing.assert_array_equal(rounded(jnp.asarray(numbers), "float32"), numbers)


def test_a_product_rounds_its_factors_and_its_cotangent():
    rng = np.random.default_rng(1)
    shapes = (2, 3, 40), (40, 7), (2, 3, 7)
    left, right, weights = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)
    value, (d_left, d_right) = jax.value_and_grad(
        lambda left, right: (product(left, right, "bfloat16") * weights).sum(), argnums=(0, 1)
    )(left, right)
    one, other, cotangent = (as_bfloat16(factor).astype(np.float64) for factor in (left, right, weights))
    np.testing.assert_allclose(value, ((one @ other) * weights).sum(), rtol=1e-5)
    np.testing.assert_allclose(d_left, cotangent @ other.T, atol=1e-5)
    np.testing.assert_allclose(d_right, np.einsum("tbi,tbo->io", one, cotangent), atol=1e-5)


def outputs_and_gradients(variant, hidden, batch_size, time, kernels, precision, monkeypatch):
    monkeypatch.setenv("CHARLOOM_KERNELS", kernels)
    cell, features, carry, resets = make(variant, hidden, batch_size, time)

    def loss(cell, features, carry):
        cell = dataclasses.replace(cell, precision=precision)
        outputs, last = run(cell, features, carry, resets)
        weights = jnp.cos(jnp.arange(outputs.size)).reshape(outputs.shape)
        return (outputs * weights).sum() + sum((state**2).sum() for state in jax.tree.leaves(last)), outputs

    (_, outputs), gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(cell, features, carry)
    return np.asarray(outputs), [np.asarray(leaf) for leaf in jax.tree.leaves(gradients)]


def distance(one, other):
    return np.linalg.norm(one - other) / np.linalg.norm(other)


@on_the_cpu
@pytest.mark.usefixtures("native_library")
@every_cell
def test_a_native_step_agrees_with_the_reference(variant, monkeypatch):
    """The factors of a single step are given, so that both round them to the same numbers."""
    got, _ = outputs_and_gradients(variant, 200, 33, 1, "native", "bfloat16", monkeypatch)
    wanted, _ = outputs_and_gradients(variant, 200, 33, 1, "reference", "bfloat16", monkeypatch)
    full, _ = outputs_and_gradients(variant, 200, 33, 1, "reference", "float32", monkeypatch)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5)
    assert np.abs(full - wanted).max() > 1e-4


@on_the_cpu
@pytest.mark.usefixtures("native_library")
@every_cell
@pytest.mark.parametrize(("hidden", "batch_size", "time"), [(62, 3, 20), (130, 17, 9)])
def test_native_sequences_are_near_the_reference(variant, hidden, batch_size, time, monkeypatch):
    """A last bit may round a state to another number, so that later steps differ. tests/kernels/driver.cc compares each
    step by itself."""
    shape = variant, hidden, batch_size, time
    got, got_gradients = outputs_and_gradients(*shape, "native", "bfloat16", monkeypatch)
    wanted, wanted_gradients = outputs_and_gradients(*shape, "reference", "bfloat16", monkeypatch)
    full, full_gradients = outputs_and_gradients(*shape, "reference", "float32", monkeypatch)
    for ours, theirs, exact in zip(
        [got, *got_gradients], [wanted, *wanted_gradients], [full, *full_gradients], strict=True
    ):
        assert distance(ours, theirs) < 0.3 * distance(exact, theirs)


@on_the_cpu
@pytest.mark.usefixtures("native_library")
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [((3, 5), 64, 57), ((700, 2), 144, 200)])
def test_a_native_head_agrees_with_the_reference(rows, inputs, outputs, monkeypatch):
    rng = np.random.default_rng(2)
    shapes = (*rows, inputs), (inputs, outputs), (outputs,), (*rows, outputs)
    values, kernel, bias, weights = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)

    def of(kernels):
        monkeypatch.setenv("CHARLOOM_KERNELS", kernels)

        def loss(values, kernel, bias):
            logits = dense(values, kernel, bias, "bfloat16")
            return (logits * weights).sum(), logits

        return jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(values, kernel, bias)

    for got, wanted in zip(jax.tree.leaves(of("native")), jax.tree.leaves(of("reference")), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * float(np.abs(wanted).max()))


@on_the_cpu
@pytest.mark.usefixtures("native_library")
def test_the_reference_has_no_fast_instructions(monkeypatch):
    assert bfloat16_instructions() in (None, "AVX512_BF16", "AMX")
    monkeypatch.setenv("CHARLOOM_KERNELS", "reference")
    assert bfloat16_instructions() is None
