"""Budgets on a clock of their own: the machine's is no part of any test."""

import jax
import numpy as np
import pytest

from charloom.data import Lanes, TokenStream
from charloom.errors import CharloomError
from charloom.models import Network
from charloom.settings import NetworkSettings, TrainingSettings
from charloom.training import Budget, Deadline, Evaluation, Pace, Progress, Stopped, Trainer, TrainingLoop

TEXT = TokenStream.of_documents([np.frombuffer(b"the quick brown fox jumps over the lazy dog. " * 40, np.uint8) % 32])


class Machine:
    """A machine whose time goes on only where it is told to, at a number of seconds an update."""

    def __init__(self, update_seconds):
        self.now = self.worked = 0.0
        self.update_seconds = update_seconds

    def works(self, seconds):
        self.now += seconds
        self.worked += 2 * seconds

    def sleeps(self, seconds):
        self.now += seconds
        self.worked += 0.01

    def budget(self, seconds, spent=0.0):
        return Budget(seconds, spent, clock=lambda: self.now, worked=lambda: self.worked)


@pytest.fixture
def machine(monkeypatch):
    machine = Machine(0.1)
    dispatch = Trainer.dispatch

    def timed(trainer, until, rates):
        first = trainer.update == 0
        done = dispatch(trainer, min(until, trainer.update + 5), rates)
        seconds = 2.0 if first else machine.update_seconds(trainer.update) * len(done.nats)
        machine.works(seconds)
        return done

    monkeypatch.setattr(Trainer, "dispatch", timed)
    return machine


def run(machine, seconds, first_plan, on_event=lambda event: None):
    network = Network.init(NetworkSettings(hidden=8, embedding=4), 32, 10, np.random.default_rng(7))
    deadline = Deadline(machine.budget(seconds), closing_seconds=3.0, evaluation_seconds=0.0)
    settings = TrainingSettings(lanes=2, unroll_length=4)
    lanes, pace = Lanes(TEXT, 2, 4), Pace(((0, first_plan),))
    loop = TrainingLoop(network, lanes, TEXT, settings, pace, jax.random.key(0), deadline=deadline)
    events = []
    for event in loop.events():
        events.append(event)
        on_event(event)
    assert events[-1] == Stopped(
        "finished", loop.state.counts.pace.updates, events[-1].epoch, events[-1].chars_per_second
    )
    return loop, events


@pytest.mark.parametrize("first_plan", [20, 400, 5000])
@pytest.mark.parametrize(
    "update_seconds",
    [lambda update: 0.1, lambda update: 0.1 if update < 150 else 0.25, lambda update: 0.1 if update < 150 else 0.04],
    ids=["steady", "a core is stolen", "a core is given back"],
)
def test_training_ends_when_the_time_is_up_with_the_rate_at_zero(machine, first_plan, update_seconds):
    machine.update_seconds = update_seconds
    loop, events = run(machine, 60, first_plan)
    # What is to come after the last update takes 3 seconds, and more where the machine has become slower.
    slower = max(1, update_seconds(10**6) / 0.1)
    assert 60 - 3 * slower - 2 < machine.now < 60 - 3 * slower
    pace = loop.state.counts.pace
    rates = loop._rates(0, pace.updates)
    assert 0 < rates[-1] < 2e-3 * rates.max()
    assert np.argmax(rates) < 0.15 * pace.updates
    assert len(pace.plans) < 20  # no more than it takes
    assert isinstance(events[-2], Evaluation)
    assert events[-2].update == pace.updates


def test_a_steady_machine_is_planned_for_once(machine):
    machine.update_seconds = lambda update: 0.1
    loop, _ = run(machine, 60, 540)
    assert len(loop.state.counts.pace.plans) <= 2


def test_the_same_pace_gives_the_same_run(machine):
    machine.update_seconds = lambda update: 0.1 if update < 100 else 0.3
    loop, events = run(machine, 40, 900)
    pace = loop.state.counts.pace
    assert len(pace.plans) > 1
    network = Network.init(NetworkSettings(hidden=8, embedding=4), 32, 10, np.random.default_rng(7))
    settings = TrainingSettings(lanes=2, unroll_length=4)
    again = TrainingLoop(network, Lanes(TEXT, 2, 4), TEXT, settings, pace, jax.random.key(0))

    def told(events):
        return [(e.update, e.validation_nats_per_char) for e in events if isinstance(e, Evaluation)]

    assert told(again.events()) == told(events)
    for a, b in zip(jax.tree.leaves(again.state.training), jax.tree.leaves(loop.state.training), strict=True):
        np.testing.assert_array_equal(a, b)


def test_time_asleep_is_not_time_trained(machine):
    machine.update_seconds = lambda update: 0.1
    awake, _ = run(machine, 40, 300)

    machine.now = machine.worked = 0.0
    nights = [100, 200]

    def update_seconds(update):
        if nights and update >= nights[0]:  # in the middle of a dispatch
            nights.pop(0)
            machine.sleeps(3600)
        return 0.1

    def sleep(event):
        if isinstance(event, Progress) and nights == [200] and event.update >= 150:
            nights.append(10**6)
            machine.sleeps(3600)

    machine.update_seconds = update_seconds

    asleep, _ = run(machine, 40, 300, sleep)
    assert machine.now > 3 * 3600
    assert asleep.state.counts.pace.updates == pytest.approx(awake.state.counts.pace.updates, abs=15)


def test_what_is_spent():
    machine = Machine(None)
    budget = machine.budget(10, spent=1)
    machine.works(4)
    assert (budget.spent, budget.left) == (5, 5)
    machine.now += 4  # before training something may be waited for
    assert (budget.spent, budget.left) == (9, 1)
    budget.go_on_from(-5)
    budget.is_training = True
    machine.works(1)
    assert budget.spent == 5
    machine.sleeps(100)
    assert budget.spent == pytest.approx(5.005)
    machine.now += 2  # a pause in which nothing is computed may be short
    assert budget.spent == pytest.approx(7.005)
    machine.now += 100  # a machine that computes at a quarter of its speed is no machine asleep
    machine.worked += 50
    assert budget.spent == pytest.approx(107.005)
    budget.go_on_from(2)
    assert budget.left == pytest.approx(-99.005)


def test_a_budget_for_less_than_an_update(machine):
    machine.update_seconds = lambda update: 0.1
    with pytest.raises(CharloomError, match=r"a budget of 4s is too short .* take 5\.6 s\. Give --budget 7s or more"):
        run(machine, 4, 100)
