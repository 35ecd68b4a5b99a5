"""Blocks are created in advance, each one once, and again if the run goes back."""

import jax
import numpy as np

from charloom.data import ContiguousBatches, TokenStream
from charloom.models import Network
from charloom.settings import NetworkSettings
from charloom.training import StepRule, Trainer, initial_state

RULE = StepRule()


class Watched:
    """A producer that records which blocks were requested."""

    def __init__(self):
        stream = TokenStream.from_documents([np.random.default_rng(0).integers(0, 6, 500)])
        self._batches = ContiguousBatches(stream, 4, 8)
        self.batch_size, self.sequence_length = 4, 8
        self.asked = []

    def block(self, first_step, steps, capacity):
        self.asked.append((first_step, steps))
        return self._batches.block(first_step, steps, capacity)


def make_trainer():
    network = Network.init(NetworkSettings(hidden=8, embedding=4), 6, 0, np.random.default_rng(0))
    producer = Watched()
    return Trainer(initial_state(network, 4, RULE), producer, RULE, jax.random.key(1)), producer


def rates(first, count):
    return np.full(count, 0.01, np.float32)


def weights(trainer):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(trainer.state.network)]


def test_each_block_is_created_once_in_advance():
    trainer, producer = make_trainer()
    ends = []
    while trainer.step < 60:
        trainer.dispatch(60, rates)
        ends.append(trainer.step)
    assert [first for first, _ in producer.asked] == [0, *ends]
    # Each dispatch makes all steps of its block, up to the requested end.
    for (first, ready), end in zip(producer.asked, ends, strict=False):
        assert end == min(60, first + ready)


def test_shorter_dispatches_give_the_same_weights():
    whole, _ = make_trainer()
    cut, _ = make_trainer()
    while whole.step < 60:
        whole.dispatch(60, rates)
    while cut.step < 60:
        cut.dispatch(min(60, cut.step + 3), rates)
    for got, expected in zip(weights(cut), weights(whole), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_after_going_back_the_block_is_created_again():
    trainer, producer = make_trainer()
    while trainer.step < 20:
        trainer.dispatch(20, rates)
    again, _ = make_trainer()
    trainer.state, trainer.step = again.state, 0
    while trainer.step < 20:
        trainer.dispatch(20, rates)
    fresh, _ = make_trainer()
    while fresh.step < 20:
        fresh.dispatch(20, rates)
    assert [first for first, _ in producer.asked].count(0) == 2
    for got, expected in zip(weights(trainer), weights(fresh), strict=True):
        np.testing.assert_array_equal(got, expected)
