import jax
import numpy as np
import pytest

from charloom.data import TokenStream, Windows, sliding_windows
from charloom.inference import MeanScore
from charloom.models import Network
from charloom.settings import NetworkSettings
from charloom.training import (
    EpochEnd,
    Phase,
    Progress,
    StepRule,
    Stopped,
    Trainer,
    has_diverged,
    initial_state,
    train_phases,
)

STREAM = TokenStream.from_documents([np.random.default_rng(0).integers(0, 6, 90)])
RULE = StepRule(last_only=True)


def make_trainer(state=None, step=0):
    network = Network.init(NetworkSettings(cell="elman", hidden=12, embedding=4), 6, 0, np.random.default_rng(0))
    windows = Windows(STREAM, sliding_windows(STREAM, 4, 1), 4, 8, shuffle_seed=3)
    return Trainer(state or initial_state(network, 8, RULE), windows, RULE, jax.random.key(1), step), windows


def run(phases, trainer=None, **options):
    trainer, windows = trainer or make_trainer()
    events = list(train_phases(trainer, phases, windows.steps_per_epoch, **options))
    return trainer, events


def weights(trainer):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(trainer.state)]


def test_a_phase_keeps_the_optimizer_of_the_previous_one():
    whole, events = run([Phase(0.01, 2), Phase(0.001, 1)])
    # The same without phases: one optimizer, whose rate changes after two epochs.
    by_hand, windows = make_trainer()
    steps = windows.steps_per_epoch
    while by_hand.step < 3 * steps:
        by_hand.dispatch(
            3 * steps,
            lambda first, count: np.where(np.arange(first, first + count) < 2 * steps, 0.01, 0.001).astype(np.float32),
        )
    for got, expected in zip(weights(whole), weights(by_hand), strict=True):
        np.testing.assert_array_equal(got, expected)
    assert [event.epoch for event in events if isinstance(event, EpochEnd)] == [1, 2, 3]
    assert isinstance(events[-1], Stopped)
    assert events[-1].reason == "finished"


def test_epochs_report_the_mean_over_every_window():
    trainer, windows = make_trainer()
    losses, hits, counted = 0.0, 0.0, 0
    while trainer.step < windows.steps_per_epoch:
        done = trainer.dispatch(windows.steps_per_epoch, lambda first, count: np.full(count, 0.01, np.float32))
        losses, hits, counted = losses + done.nats.sum(), hits + done.correct.sum(), counted + done.characters.sum()
    assert counted == len(windows.starts)  # the last step has fewer windows
    _, events = run([Phase(0.01, 1)])
    (end,) = [event for event in events if isinstance(event, EpochEnd)]
    assert end.loss_nats == pytest.approx(losses / counted)
    assert end.accuracy == pytest.approx(hits / counted)


def test_resuming_after_an_epoch_equals_an_uninterrupted_run():
    phases = [Phase(0.01, 2), Phase(0.001, 2)]
    whole, _ = run(phases)
    first, _ = run([Phase(0.01, 1)])
    second, events = run(phases, make_trainer(first.state, first.step))
    for got, expected in zip(weights(second), weights(whole), strict=True):
        np.testing.assert_array_equal(got, expected)
    assert [event.epoch for event in events if isinstance(event, EpochEnd)] == [2, 3, 4]


def test_an_interrupted_epoch_is_not_reported():
    asked = []
    trainer, events = run([Phase(0.01, 3)], should_stop=lambda: bool(asked.append(1)) or len(asked) > 2)
    assert events[-1].reason == "interrupted"
    reported = [event for event in events if isinstance(event, EpochEnd)]
    assert len(reported) == trainer.step // 11 - (trainer.step % 11 == 0)
    assert sum(isinstance(event, Progress) for event in events) == 3


def test_a_loss_of_nan_ends_training():
    _, events = run([Phase(1e30, 5)])
    assert events[-1].reason == "diverged"
    ends = [event for event in events if isinstance(event, EpochEnd)]
    assert len(ends) < 5
    assert not np.isfinite(ends[-1].loss_nats)


@pytest.mark.parametrize(("loss", "over"), [(2.0, False), (14.0, False), (189.0, True), (np.inf, True), (np.nan, True)])
def test_hopeless_losses_have_diverged(loss, over):
    assert has_diverged(loss) is over


def test_held_out_text_is_scored_after_each_epoch_with_its_weights():
    biases = []

    def held_out(state):
        biases.append(np.asarray(state.network.head.bias).copy())
        return MeanScore(1.5, 0.25)

    trainer, events = run([Phase(0.01, 2)], held_out=held_out)
    assert [event.held_out for event in events if isinstance(event, EpochEnd)] == [MeanScore(1.5, 0.25)] * 2
    assert not np.array_equal(biases[0], biases[1])
    np.testing.assert_array_equal(biases[1], trainer.state.network.head.bias)
