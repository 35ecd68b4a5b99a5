import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from charloom.data import ContiguousBatches, TokenStream
from charloom.models import Network, cross_entropy
from charloom.settings import NetworkSettings, TrainingSettings
from charloom.training import (
    Evaluating,
    Evaluation,
    LoopState,
    Notice,
    Progress,
    StepPlan,
    StepRule,
    Stopped,
    TrainingLoop,
    initial_state,
    learning_rates,
    make_optimizer,
    run_block,
)

KEY = jax.random.key(0)
TEXT = np.frombuffer(b"the quick brown fox jumps over the lazy dog. " * 60, np.uint8) % 32
STREAM = TokenStream.from_documents([TEXT[:2400]])
VALIDATION = TokenStream.from_documents([TEXT[2400:]])


def make(hidden=16, layers=1):
    return Network.init(NetworkSettings(hidden=hidden, embedding=8, layers=layers), 32, 10, np.random.default_rng(7))


def run(batches, rates, capacity=None, network=None, **options):
    rule = StepRule(**options)
    state = initial_state(network or make(), batches.batch_size, rule)
    capacity = capacity or len(rates)
    losses, done = [], 0
    while done < len(rates):
        count = min(capacity, len(rates) - done)
        block = batches.block(done, count, capacity)
        padded = np.zeros(capacity, np.float32)
        padded[:count] = rates[done : done + count]
        state, totals = run_block(
            state, block.token_ids, block.resets, block.scored, block.state_resets, padded, count, done, KEY, rule=rule
        )
        losses += (np.asarray(totals.nats)[:count] / block.scored[:count].sum(axis=(1, 2))).tolist()
        done += count
    return state, losses


def leaves(tree):
    return jax.tree.leaves(tree)


@pytest.mark.parametrize(("clip_norm", "weight_decay"), [(None, 0.0), (0.05, 0.0), (0.05, 0.3)])
def test_steps_follow_adams_equations(clip_norm, weight_decay):
    batches = ContiguousBatches(STREAM, 2, 10)
    rates = np.array([0.01, 0.02, 0.005], np.float32)
    state, losses = run(batches, rates, clip_norm=clip_norm, weight_decay=weight_decay)

    # The same in NumPy: Adam (Kingma and Ba, 2015, end of section 2), with separately computed gradients of the loss.
    network, carry = make(), make().zero_carry(2)
    first = [np.zeros(leaf.shape) for leaf in leaves(network)]
    second = [np.zeros(leaf.shape) for leaf in leaves(network)]
    for step, rate in enumerate(rates):
        block = batches.block(step, 1, 1)
        ids, resets = jnp.asarray(block.token_ids[0].T), jnp.asarray(block.resets[0].T)

        def loss(network, ids=ids, resets=resets, carry=carry):
            logits, after = network(ids[:-1], resets, carry)
            return cross_entropy(logits, ids[1:]).mean(), after

        (value, carry), gradient = jax.value_and_grad(loss, has_aux=True)(network)
        assert losses[step] == pytest.approx(float(value), rel=1e-6)
        weights = []
        norm = np.sqrt(sum((np.asarray(g, np.float64) ** 2).sum() for g in leaves(gradient)))
        assert clip_norm is None or norm > clip_norm
        for index, (weight, g) in enumerate(zip(leaves(network), leaves(gradient), strict=True)):
            g = np.asarray(g, np.float64) * (1 if clip_norm is None else clip_norm / norm)
            first[index] = 0.9 * first[index] + 0.1 * g
            second[index] = 0.999 * second[index] + 0.001 * g**2
            decay = rate * weight_decay * np.asarray(weight, np.float64) if weight.ndim > 1 else 0
            corrected = rate * np.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
            weights.append(
                jnp.asarray(weight - decay - corrected * first[index] / (np.sqrt(second[index]) + 1e-7), jnp.float32)
            )
        network = jax.tree.unflatten(jax.tree.structure(network), weights)
    for got, expected in zip(leaves(state.network), leaves(network), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(state.carry[0].cell, carry[0].cell, rtol=1e-4, atol=1e-6)


def test_results_do_not_depend_on_how_steps_are_grouped():
    batches, rates = ContiguousBatches(STREAM, 3, 7), np.full(11, 0.01, np.float32)
    whole, losses = run(batches, rates, dropout=0.3, state_reset_probability=0.2, weight_dropout=0.2)
    for capacity in (1, 4):
        part, part_losses = run(batches, rates, capacity, dropout=0.3, state_reset_probability=0.2, weight_dropout=0.2)
        assert part_losses == losses
        for a, b in zip(leaves(whole), leaves(part), strict=True):
            np.testing.assert_array_equal(a, b)


def test_dropout_weight_dropout_and_state_resets_change_the_losses():
    batches, rates = ContiguousBatches(STREAM, 3, 7), np.full(6, 0.01, np.float32)
    plain = run(batches, rates)[1]
    assert plain != run(batches, rates, dropout=0.3)[1]
    assert plain != run(batches, rates, weight_dropout=0.3)[1]
    assert plain[1:] != run(batches, rates, state_reset_probability=0.9)[1][1:]


def test_a_large_gradient_is_scaled_down_to_the_norm():
    gradient = {"a": jnp.array([3.0, 4.0])}  # norm 5
    optimizer, unlimited = make_optimizer(StepRule(clip_norm=0.5)), make_optimizer(StepRule())
    step, _ = optimizer.update(gradient, optimizer.init(gradient))
    expected, _ = unlimited.update({"a": jnp.array([0.3, 0.4])}, unlimited.init(gradient))
    np.testing.assert_allclose(step["a"], expected["a"], rtol=1e-6)


def test_nesterov_momentum_follows_its_equations():
    optimizer = make_optimizer(StepRule(nesterov=True))
    gradients = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    state = optimizer.init(jnp.zeros(7))
    mean = square = np.zeros(7)
    for count, gradient in enumerate(gradients, 1):
        step, state = optimizer.update(jnp.asarray(gradient), state)
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient.astype(float) ** 2
        ahead = 0.9 * mean / (1 - 0.9 ** (count + 1)) + 0.1 * gradient / (1 - 0.9**count)
        expected = np.sqrt(1 - 0.999**count) * ahead / (np.sqrt(square) + 1e-7)
        # In float32, 1 - 0.999 has a relative error of up to 6e-5, and its root half of that.
        np.testing.assert_allclose(step, expected, rtol=3e-5)


def events_of(settings, steps=60, should_stop=lambda: False, hidden=32):
    batches = ContiguousBatches(STREAM, settings.batch_size, settings.sequence_length)
    return list(
        TrainingLoop(make(hidden), batches, VALIDATION, settings, StepPlan(((0, steps),)), KEY).events(should_stop)
    )


STEP_PLAN = StepPlan(((0, 60),))
SETTINGS = TrainingSettings(batch_size=4, sequence_length=16, learning_rate=0.01, dropout=0.05)


def test_a_tiny_text_is_memorized():
    batches, step_plan = (
        ContiguousBatches(STREAM, SETTINGS.batch_size, SETTINGS.sequence_length),
        StepPlan(((0, 2_000),)),
    )
    for event in TrainingLoop(make(64), batches, VALIDATION, SETTINGS, step_plan, KEY).events():
        # The held-out part repeats the text, whose characters have an entropy of 3 nats.
        if isinstance(event, Evaluation) and event.validation_nats_per_char < 0.05:
            return
    pytest.fail("the text was not learned in 2,000 steps")


def test_a_run_uses_nesterov_momentum():
    settings = TrainingSettings(
        batch_size=2, sequence_length=10, dropout=0.0, state_reset_probability=0.0, clip_norm=0.5
    )
    batches, step_plan = ContiguousBatches(STREAM, 2, 10), StepPlan(((0, 4),))
    loop = TrainingLoop(make(), batches, VALIDATION, settings, step_plan, KEY)
    for _ in loop.events():
        pass
    rates = learning_rates(settings, step_plan, 0, 4)
    expected, without = (run(batches, rates, clip_norm=0.5, nesterov=nesterov)[0] for nesterov in (True, False))
    for got, ahead, behind in zip(
        *(leaves(state.network) for state in (loop.state.training, expected, without)), strict=True
    ):
        np.testing.assert_array_equal(got, ahead)
        assert not np.array_equal(got, behind)


def test_events_report_the_run():
    events = events_of(SETTINGS)
    assert isinstance(events[-1], Stopped)
    assert (events[-1].reason, events[-1].step) == ("finished", 60)
    evaluations = [event for event in events if isinstance(event, Evaluation)]
    assert [event.step for event in evaluations] == [20, 40, 60]
    lowest = float("inf")
    for event in evaluations:
        assert event.improved == (event.validation_nats_per_char < lowest)
        lowest = min(lowest, event.validation_nats_per_char)
    progress = [event for event in events if isinstance(event, Progress)]
    assert progress[-1].step == 60
    assert progress[-1].seconds_left == 0
    assert progress[-1].epoch == pytest.approx(60 * 64 / 2400)


def test_the_same_seed_gives_the_same_run():
    losses = [
        [event.validation_nats_per_char for event in events_of(SETTINGS) if isinstance(event, Evaluation)]
        for _ in range(2)
    ]
    assert losses[0] == losses[1]


def test_a_stop_request_is_followed_by_an_evaluation():
    events = events_of(SETTINGS, steps=10_000, should_stop=lambda: True)
    assert [type(event) for event in events] == [Progress, Evaluating, Evaluation, Stopped]
    assert events[-1].reason == "interrupted"


def test_a_stop_request_during_an_evaluation_causes_no_other_evaluation():
    events = []
    batches = ContiguousBatches(STREAM, SETTINGS.batch_size, SETTINGS.sequence_length)
    loop = TrainingLoop(make(32), batches, VALIDATION, SETTINGS, StepPlan(((0, 60),)), KEY)
    for event in loop.events(lambda: any(isinstance(event, Evaluating) for event in events)):
        events.append(event)
    assert [type(event) for event in events[-4:]] == [Evaluating, Evaluation, Progress, Stopped]
    assert (events[-2].stopping, events[-2].step, events[-1].reason) == (True, 20, "interrupted")
    assert loop.state.progress.evaluated == loop.state.progress.step == 20


def test_an_event_announces_each_evaluation_and_its_duration():
    events = [event for event in events_of(SETTINGS) if isinstance(event, Evaluating)]
    assert len(events) == 3
    assert all(event.seconds is not None and 0 < event.seconds < 60 for event in events[1:])


def test_a_loss_of_nan_ends_the_run():
    settings = TrainingSettings(batch_size=4, sequence_length=16, learning_rate=1e38, warmup_ratio=0)
    events = events_of(settings, steps=10_000)
    assert events[-1].reason == "diverged"
    assert events[-1].step < 10_000
    tries = [event.text for event in events if isinstance(event, Notice)]
    assert [("back to step 0" in text, "after 3 retries" in text) for text in tries] == [(True, False)] * 3 + [
        (False, True)
    ]
    assert not any(isinstance(event, Evaluation) for event in events)


def test_a_diverged_run_goes_back_and_halves_the_learning_rate():
    loop = TrainingLoop(make(16), ContiguousBatches(STREAM, 4, 16), VALIDATION, SETTINGS, STEP_PLAN, KEY)
    events = []
    for event in loop.events():
        events.append(event)
        if isinstance(event, Evaluation) and event.step == 20 and loop.state.progress.retries == 0:
            broken = jax.tree.map(lambda leaf: leaf * np.nan, loop.state.training.network)
            loop._trainer.state = loop._trainer.state._replace(network=broken)
    assert [event.step for event in events if isinstance(event, Evaluation)] == [20, 40, 60]
    (notice,) = (event.text for event in events if isinstance(event, Notice))
    assert notice.startswith("training diverged at step ")
    assert notice.endswith(": going back to step 20 at half the learning rate (retry 1 of 3)")
    assert loop.state.progress.retries == 1
    assert events[-1].reason == "finished"


def test_patience_ends_a_run_that_no_longer_improves():
    noise = TokenStream.from_documents([np.random.default_rng(0).integers(0, 5, 600)])
    settings = TrainingSettings(batch_size=4, sequence_length=16, learning_rate=0.03, dropout=0.0, patience=2)
    events = list(
        TrainingLoop(
            make(64), ContiguousBatches(noise, 4, 16), VALIDATION, settings, StepPlan(((0, 2_000),)), KEY
        ).events()
    )
    improved = [event.improved for event in events if isinstance(event, Evaluation)]
    assert (events[-1].reason, improved[-3:]) == ("patience", [True, False, False])
    assert events[-1].step < 2_000
    assert [False, False] not in [improved[at : at + 2] for at in range(len(improved) - 2)]


@pytest.mark.parametrize("dispatches", [1, 2, 4])
def test_a_resumed_loop_equals_an_uninterrupted_one_bit_for_bit(dispatches):
    def loop(start=None):
        return TrainingLoop(make(16), ContiguousBatches(STREAM, 4, 16), VALIDATION, SETTINGS, STEP_PLAN, KEY, start)

    whole, first = loop(), loop()
    evaluations = [event for event in whole.events() if isinstance(event, Evaluation)]
    done = itertools.count(1)
    for event in first.events(lambda: next(done) == dispatches):
        if isinstance(event, Progress) and event.stopping:
            kept = LoopState(*jax.tree.map(np.array, first.state[:2]), first.state.progress)
    assert 0 < kept.progress.step < 60
    second = loop(LoopState(*jax.tree.map(jnp.asarray, kept[:2]), kept.progress))
    rest = [event for event in second.events() if isinstance(event, Evaluation)]
    for got, expected in zip(jax.tree.leaves(second.state[:2]), jax.tree.leaves(whole.state[:2]), strict=True):
        np.testing.assert_array_equal(got, expected)
    assert second.state.progress == whole.state.progress
    assert [(event.step, event.train_nats_per_char, event.validation_nats_per_char) for event in rest] == [
        (event.step, event.train_nats_per_char, event.validation_nats_per_char)
        for event in evaluations
        if event.step > kept.progress.evaluated
    ]


def test_weights_of_an_evaluation_stay_valid():
    evaluations = [event for event in events_of(SETTINGS, steps=96) if isinstance(event, Evaluation)]
    assert len(evaluations) == 5
    kernels = [np.asarray(event.network.head.kernel) for event in evaluations]
    assert all(not np.array_equal(a, b) for a, b in itertools.pairwise(kernels))
