"""Dynamic evaluation, compared with an optimizer and a network that share no code with charloom's."""

from functools import partial

import jax
import numpy as np
import pytest

from charloom.data import TokenStream
from charloom.model import TextModel
from charloom.models import Network
from charloom.runs import dynamic_score
from charloom.runs.dynamic_evaluation import DYNAMIC_RATE
from charloom.settings import NetworkSettings, TextSettings
from charloom.text import Vocabulary
from tests.reference import NumpyNetwork

SPAN = 64
"""The number of characters that are scored before the model learns from them."""


def small_model():
    settings = NetworkSettings(hidden=4, embedding=3)
    vocabulary = Vocabulary("chars", "\nabcd")
    network = Network.init(settings, vocabulary.size, vocabulary.start_id, np.random.default_rng(3))
    return TextModel(network, vocabulary, settings, TextSettings(), {}, {})


def nats_of(model, weights, token_ids, previous, state):
    """Returns the nats of each of `token_ids`, read with float64 `weights`, and the state after them."""
    network = NumpyNetwork(model.network)
    network.network = jax.tree.unflatten(jax.tree.structure(model.network), weights)
    network.state = list(state)
    costs = []
    for token_id in token_ids:
        logits = network.step(previous)
        costs.append(np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[token_id])
        previous = token_id
    return np.array(costs), network.state


def numerical_gradient(weights, loss, step=1e-5):
    """Returns the gradient of `loss` by central differences."""
    gradient = []
    for weight in weights:
        slopes = np.zeros_like(weight)
        for index in np.ndindex(weight.shape):
            at = weight[index]
            weight[index] = at + step
            above = loss()
            weight[index] = at - step
            slopes[index] = (above - loss()) / (2 * step)
            weight[index] = at
        gradient.append(slopes)
    return gradient


def reference_score(model, token_ids, rate):
    """Returns the mean nats with Adam (Kingma and Ba, 2015, end of section 2) and gradients clipped to norm 1."""
    weights = [np.array(leaf, np.float64) for leaf in jax.tree.leaves(model.network)]
    first, second = ([np.zeros_like(weight) for weight in weights] for _ in range(2))
    previous, state = None, NumpyNetwork(model.network).zeros
    total = 0.0
    for step, begin in enumerate(range(0, len(token_ids), SPAN), 1):
        span = token_ids[begin : begin + SPAN]
        costs, after = nats_of(model, weights, span, previous, state)
        total += costs.sum()
        loss = partial(nats_of, model, weights, span, previous, state)
        gradient = numerical_gradient(weights, lambda loss=loss: loss()[0].mean())
        norm = np.sqrt(sum((slopes**2).sum() for slopes in gradient))
        for index, slopes in enumerate(gradient):
            slopes = slopes * min(1.0, 1.0 / norm)
            first[index] = 0.9 * first[index] + 0.1 * slopes
            second[index] = 0.999 * second[index] + 0.001 * slopes**2
            scale = np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
            weights[index] -= rate * scale * first[index] / (np.sqrt(second[index]) + 1e-7)
        previous, state = span[-1], after
    return total / len(token_ids)


@pytest.mark.parametrize("rate", [DYNAMIC_RATE, 0.05])
def test_each_span_is_scored_before_adam_learns_from_it(rate):
    model = small_model()
    before = [np.array(leaf, np.float64) for leaf in jax.tree.leaves(model.network)]
    token_ids = np.random.default_rng(5).choice(5, size=3 * SPAN + 17, p=[0.05, 0.5, 0.25, 0.15, 0.05])
    dynamic = dynamic_score(model, TokenStream.from_documents([token_ids]), rate)
    assert dynamic.nats_per_char == pytest.approx(reference_score(model, token_ids, rate), abs=2e-5)
    unchanged, _ = nats_of(model, before, token_ids, None, NumpyNetwork(model.network).zeros)
    assert abs(dynamic.nats_per_char - unchanged.mean()) > 1e-4  # it did learn
    for leaf, original in zip(jax.tree.leaves(model.network), before, strict=True):
        np.testing.assert_array_equal(leaf, original)  # and the model itself did not change
