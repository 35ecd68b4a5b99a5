import jax
import jax.numpy as jnp
import numpy as np
import pytest

from charloom.data import TokenStream, evaluation_pass
from charloom.inference import score_blocks
from charloom.models import Network
from charloom.runs.calibration import calibrate, scale_logits
from charloom.settings import NetworkSettings

VOCABULARY = 20


@pytest.fixture(scope="module")
def network():
    return Network.init(NetworkSettings(hidden=16, embedding=8), VOCABULARY, 0, np.random.default_rng(1))


@pytest.fixture(scope="module")
def confident(network):
    """A network with large logits."""
    return scale_logits(network, 30.0)


def sampled_from(network, length):
    """A text sampled from the network, so that a temperature of 1 fits it best."""
    rng, carry, ids = np.random.default_rng(2), network.zero_carry(1), [0]
    step = jax.jit(lambda ids, carry: network(ids, jnp.zeros((1, 1), bool), carry))
    for _ in range(length):
        logits, carry = step(jnp.array([[ids[-1]]], jnp.int32), carry)
        weights = np.exp(np.asarray(logits[0, 0], np.float64))
        ids.append(int(rng.choice(VOCABULARY, p=weights / weights.sum())))
    return TokenStream.from_documents([np.array(ids[1:])])


def cost(network, text):
    return score_blocks(network, evaluation_pass(text)).nats_per_char


@pytest.mark.parametrize("factor", [0.85, 1.0, 1.15])
def test_calibration_finds_the_temperature_of_a_sampled_text(confident, factor):
    text = sampled_from(confident, 3000)
    wrong = scale_logits(confident, factor)
    found = calibrate(wrong, text, cost(wrong, text))
    assert found.head.kernel[0, 0] / confident.head.kernel[0, 0] == pytest.approx(1, abs=0.05)
    costs = [cost(scale_logits(confident, scale), text) for scale in np.linspace(0.7, 1.3, 13)]
    assert cost(found, text) < min(costs) + 1e-3
    np.testing.assert_allclose(found.head.bias, wrong.head.bias * (found.head.kernel[0, 0] / wrong.head.kernel[0, 0]))


def test_a_short_text_and_a_head_without_weights_change_nothing(network):
    text = TokenStream.from_documents([np.zeros(500, np.int64)])
    assert calibrate(network, text, cost(network, text)) is network
    bare = Network.init(NetworkSettings(hidden=VOCABULARY, head="logits"), VOCABULARY, 0, np.random.default_rng(1))
    long = TokenStream.from_documents([np.arange(2000) % VOCABULARY])
    assert calibrate(bare, long, cost(bare, long)) is bare


def test_calibration_changes_the_logits_by_a_quarter_at_most(network):
    text = TokenStream.from_documents([np.arange(2000) % VOCABULARY])
    found = calibrate(network, text, cost(network, text))
    assert 0.75 <= float(found.head.kernel[0, 0] / network.head.kernel[0, 0]) <= 1.25 + 1e-6
