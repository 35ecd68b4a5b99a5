import jax
import jax.numpy as jnp
import numpy as np
import pytest

from charloom.inference import generate_tokens, read_prompt
from charloom.models import Network, cross_entropy
from charloom.settings import NetworkSettings, SamplingSettings
from charloom.studies.overwritten_state import overwrite


def make(cell):
    network = Network.init(NetworkSettings(cell=cell, hidden=9, embedding=4), 6, 0, np.random.default_rng(0))
    rng = np.random.default_rng(0)
    ids = jnp.asarray(rng.integers(0, 6, (4, 3)), jnp.int32)
    carry = jax.tree.map(lambda zero: jnp.asarray(rng.normal(size=zero.shape), jnp.float32), network.zero_carry(3))
    return network, ids, carry


def loss(network, ids, carry):
    logits, last = network(ids, jnp.zeros(ids.shape, bool), carry)
    return cross_entropy(logits, ids).sum(), last


@pytest.mark.parametrize("cell", ["elman", "lstm"])
def test_outputs_are_correct_and_the_gradient_at_the_first_step_uses_the_last_state(cell):
    network, ids, carry = make(cell)
    (wanted, last), right = jax.value_and_grad(loss, has_aux=True)(network, ids, carry)
    (got, _), wrong = jax.value_and_grad(loss, has_aux=True)(overwrite(network), ids, carry)
    assert float(got) == pytest.approx(float(wanted))

    # A zero probe gives the gradient of the loss with respect to the pre-activation of each step.
    def probed(probe):
        table, carried, total = network.projection_table(), carry, 0.0
        for step in range(4):
            output, layer = network.cells[0].step(table[ids[step]] + probe[step], carried[0])
            carried = (layer,)
            total = total + cross_entropy(network.head(output), ids[step]).sum()
        return total

    d_right = np.asarray(jax.grad(probed)(jnp.zeros((4, 3, network.cells[0].bias.shape[0]))))[0]
    d_wrong, before, after = d_right.copy(), carry[0], last[0]
    if cell == "lstm":
        # The forget gate's gradient uses the overwritten cell state too: its cotangent is d c times c.
        d_wrong[:, 9:18] *= np.asarray(after.cell / before.cell)
        before, after = before.hidden, after.hidden
    mistake = np.asarray(after).T @ d_wrong - np.asarray(before).T @ d_right
    difference = np.asarray(wrong.cells[0].recurrent_kernel - right.cells[0].recurrent_kernel)
    np.testing.assert_allclose(difference, mistake, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(wrong.head.kernel, right.head.kernel, rtol=1e-6)


@pytest.mark.usefixtures("kernels")
def test_it_generates_the_same_text_as_the_original_network():
    network, *_ = make("elman")
    texts = [
        np.concatenate(
            list(generate_tokens(one, read_prompt(one, np.array([1, 2])), 30, SamplingSettings(), 0, [0])), axis=1
        ).tolist()
        for one in (network, overwrite(network))
    ]
    assert texts[0] == texts[1]
