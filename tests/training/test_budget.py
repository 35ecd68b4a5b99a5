"""Budgets on a simulated clock. No test depends on the speed of the machine."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from charloom.data import ContiguousBatches, TokenStream
from charloom.errors import CharloomError
from charloom.models import Network
from charloom.settings import NetworkSettings, TrainingSettings
from charloom.training import Budget, Deadline, Evaluation, Progress, StepPlan, Stopped, TrainingLoop, loop, trainer

TEXT, HELD_OUT = (
    TokenStream.from_documents([np.frombuffer(b"the quick brown fox jumps over the lazy dog. " * times, np.uint8) % 32])
    for times in (40, 2)
)


EVALUATION, CLOSING = 0.3, 3.0
"""Durations of an evaluation and of the work after training, if a step takes 0.1 s."""


class Machine:
    """A machine with a simulated clock and a given duration per step."""

    def __init__(self, step_seconds):
        self.now = self.worked = 0.0
        self.step_seconds = step_seconds
        self.step = 0

    def works(self, seconds):
        self.now += seconds
        self.worked += 2 * seconds

    def sleeps(self, seconds):
        self.now += seconds
        self.worked += 0.01

    @property
    def slowness(self):
        return self.step_seconds(self.step) / 0.1

    def budget(self, seconds, spent=0.0, reserved=0.0):
        return Budget(seconds, spent, reserved, clock=lambda: self.now, cpu_clock=lambda: self.worked)


@pytest.fixture
def machine(monkeypatch):
    """A simulated machine. Steps, scores and the length of dispatches are real; only the clock is simulated."""
    machine = Machine(0.1)
    run_block, score_blocks = trainer.run_block, loop.score_blocks

    def timed(state, *arguments, rule):
        done = run_block(state, *arguments, rule=rule)
        count, first = arguments[-3:-1]
        machine.step = first + count
        machine.works(2.0 if first == 0 else machine.step_seconds(machine.step) * count)  # the first compiles
        return done

    def scored(network, blocks):
        machine.works(EVALUATION * machine.slowness)
        return score_blocks(network, blocks)

    monkeypatch.setattr(trainer, "run_block", timed)
    monkeypatch.setattr(trainer, "time", SimpleNamespace(perf_counter=lambda: machine.now))
    monkeypatch.setattr(loop, "score_blocks", scored)
    return machine


def run(machine, seconds, first_plan, on_event=lambda event: None, measured_at=1.0, reserved=0.0, measure_score=None):
    """Runs a loop to its end. `measured_at` is the slowness of the machine when durations were measured."""
    network = Network.init(NetworkSettings(hidden=8, embedding=4), 32, 10, np.random.default_rng(7))
    budget = machine.budget(seconds, reserved=reserved)
    deadline = Deadline(budget, measured_at * CLOSING, measured_at * EVALUATION, measure_score=measure_score)
    settings = TrainingSettings(batch_size=2, sequence_length=4)
    batches, step_plan = ContiguousBatches(TEXT, 2, 4), StepPlan(((0, first_plan),))
    loop = TrainingLoop(network, batches, HELD_OUT, settings, step_plan, jax.random.key(0), deadline=deadline)
    events = []
    for event in loop.events():
        events.append(event)
        on_event(event)
    assert events[-1] == Stopped(
        "finished", loop.state.progress.step_plan.steps, events[-1].epoch, events[-1].chars_per_second
    )
    return loop, events


@pytest.mark.parametrize("first_plan", [20, 400, 5000])
@pytest.mark.parametrize(
    "step_seconds",
    [lambda step: 0.1, lambda step: 0.1 if step < 150 else 0.25, lambda step: 0.1 if step < 150 else 0.04],
    ids=["steady", "a core is stolen", "a core is given back"],
)
def test_training_ends_on_time_with_the_learning_rate_near_zero(machine, first_plan, step_seconds):
    machine.step_seconds = step_seconds
    loop, events = run(machine, 60, first_plan)
    # The work after the last evaluation.
    machine.works(CLOSING * machine.slowness)
    assert 57 < machine.now < 60
    step_plan = loop.state.progress.step_plan
    rates = loop._rates(0, step_plan.steps)
    assert 0 < rates[-1] < 2e-3 * rates.max()
    assert np.argmax(rates) < 0.15 * step_plan.steps
    assert len(step_plan.plans) < 20  # few changes are enough
    assert isinstance(events[-2], Evaluation)
    assert events[-2].step == step_plan.steps


def test_on_a_steady_machine_the_plan_changes_once(machine):
    machine.step_seconds = lambda step: 0.1
    loop, _ = run(machine, 60, 525)
    assert len(loop.state.progress.step_plan.plans) <= 2


@pytest.mark.parametrize("measured_at", [0.4, 2.5])
def test_the_duration_of_the_final_score_is_estimated_from_evaluations(machine, measured_at):
    machine.step_seconds = lambda step: 0.1
    run(machine, 60, 400, measured_at=measured_at)
    machine.works(CLOSING)
    assert 57 < machine.now < 60


@pytest.mark.parametrize("once", [1, 2], ids=["the first", "another"])
def test_a_single_long_delay_does_not_end_training_early(machine, once):
    """A delay by a compiler at the first evaluation, or by a disk at another one."""
    machine.step_seconds = lambda step: 0.1
    evaluations = []

    def on_event(event):
        if isinstance(event, Evaluation):
            evaluations.append(event)
            machine.works(9.0 if len(evaluations) == once else 0.1)

    loop, _ = run(machine, 60, 400, on_event)
    machine.works(CLOSING)
    assert len(evaluations) > 2
    assert 57 < machine.now < 60
    assert loop.state.progress.step_plan.steps > 350


def test_regular_delays_after_evaluations_are_planned_for(machine):
    machine.step_seconds = lambda step: 0.1
    loop, _ = run(machine, 60, 400, lambda event: machine.works(2.0 * isinstance(event, Evaluation)))
    machine.works(CLOSING)
    assert 57 < machine.now < 61.5
    assert loop.state.progress.step_plan.steps < 480


def test_a_score_that_slows_down_more_than_steps_is_measured_again(machine):
    """One row waits for other processes at each step; many rows slow down less."""
    machine.step_seconds = lambda step: 0.1 if step < 100 else 0.12
    score_seconds = {"now": CLOSING}

    def on_event(event):
        if getattr(event, "step", 0) >= 100:
            score_seconds["now"] = 5 * CLOSING

    run(machine, 60, 400, on_event, measure_score=lambda network: score_seconds["now"])
    machine.works(score_seconds["now"])
    assert 57 < machine.now < 62


def test_a_machine_that_is_busy_at_first_is_used_to_the_end(machine):
    machine.step_seconds = lambda step: 0.3 if step < 30 else 0.1
    loop, _ = run(machine, 30, 300, measured_at=3.0)
    machine.works(CLOSING)
    assert 28 < machine.now < 30.5  # the estimated speed lags by some seconds
    assert loop.state.progress.step_plan.steps > 130


def test_reserved_time_is_left_to_the_caller(machine):
    machine.step_seconds = lambda step: 0.1
    run(machine, 60, 400, reserved=10.0)
    machine.works(CLOSING)
    assert 48 < machine.now < 50


def test_training_with_steps_of_several_seconds_ends_near_the_deadline(machine):
    machine.step_seconds = lambda step: 4.4
    deadline = Deadline(machine.budget(60), CLOSING, EVALUATION)
    step_plan = StepPlan(((0, 500),))
    for step in range(1, 100):
        machine.works(4.4)
        deadline.record_dispatch(1, 4.4)
        if step == step_plan.steps:
            break
        step_plan = deadline.replanned(step_plan, step, 1)
    machine.works(EVALUATION + CLOSING)
    assert 57 < machine.now < 62.5


def test_a_first_plan_that_is_too_short_is_extended_in_time(machine):
    machine.step_seconds = lambda step: 0.001
    loop, _ = run(machine, 8, 40)
    assert loop.state.progress.step_plan.steps > 500


def test_a_long_run_on_an_unsteady_machine_has_few_plans():
    machine = Machine(None)
    budget = machine.budget(30 * 3600)
    deadline = Deadline(budget, CLOSING, EVALUATION)
    step_plan, step, rng = StepPlan(((0, 10**9),)), 0, np.random.default_rng(0)
    while step < step_plan.steps:
        # Steps of 5 ms, whose duration varies by a fifth within minutes.
        seconds = 0.005 * (1 + 0.2 * np.sin(machine.now / 100) + 0.1 * rng.normal())
        made = min(6_000, step_plan.steps - step)
        machine.works(made * seconds)
        step += made
        deadline.record_dispatch(made, made * seconds)
        if step < step_plan.steps:
            step_plan = deadline.replanned(step_plan, step, 1)
    assert 30 * 3600 - 40 < machine.now < 30 * 3600 + 3
    assert len(step_plan.plans) < 100


def test_a_plan_does_not_exceed_the_maximum_step_count():
    machine = Machine(None)
    deadline = Deadline(machine.budget(10**6), CLOSING, EVALUATION)
    machine.works(1)
    deadline.record_dispatch(10_000, 1)
    assert deadline.replanned(StepPlan(((0, 10**6),)), 10_000, 1).steps == 2**31 - 1


def test_the_same_plan_gives_the_same_run(machine):
    machine.step_seconds = lambda step: 0.1 if step < 100 else 0.3
    loop, events = run(machine, 40, 900)
    step_plan = loop.state.progress.step_plan
    assert len(step_plan.plans) > 1
    network = Network.init(NetworkSettings(hidden=8, embedding=4), 32, 10, np.random.default_rng(7))
    settings = TrainingSettings(batch_size=2, sequence_length=4)
    again = TrainingLoop(network, ContiguousBatches(TEXT, 2, 4), HELD_OUT, settings, step_plan, jax.random.key(0))

    def scores_of(events):
        return [(e.step, e.validation_nats_per_char) for e in events if isinstance(e, Evaluation)]

    assert scores_of(again.events()) == scores_of(events)
    for a, b in zip(jax.tree.leaves(again.state.training), jax.tree.leaves(loop.state.training), strict=True):
        np.testing.assert_array_equal(a, b)


def test_time_asleep_does_not_count(machine):
    machine.step_seconds = lambda step: 0.1
    awake, _ = run(machine, 40, 300)

    machine.now = machine.worked = 0.0
    nights = [100, 200]

    def step_seconds(step):
        if nights and step >= nights[0]:  # in the middle of a dispatch
            nights.pop(0)
            machine.sleeps(3600)
        return 0.1

    def sleep(event):
        if isinstance(event, Progress) and nights == [200] and event.step >= 150:
            nights.append(10**6)
            machine.sleeps(3600)

    machine.step_seconds = step_seconds

    asleep, _ = run(machine, 40, 300, sleep)
    assert machine.now > 3 * 3600
    assert asleep.state.progress.step_plan.steps == pytest.approx(awake.state.progress.step_plan.steps, abs=15)


def test_spent_seconds():
    machine = Machine(None)
    budget = machine.budget(10, spent=1)
    machine.works(4)
    assert (budget.spent, budget.left) == (5, 5)
    machine.now += 4  # before training, the process may wait for something
    assert (budget.spent, budget.left) == (9, 1)
    budget.add_spent(-5)
    budget.is_training = True
    machine.works(1)
    assert budget.spent == 5
    machine.sleeps(100)
    assert budget.spent == pytest.approx(5.005)
    machine.now += 2  # short idle pauses count
    assert budget.spent == pytest.approx(7.005)
    machine.now += 100  # a process next to a dozen busy ones is slow, not asleep
    machine.worked += 20
    assert budget.spent == pytest.approx(107.005)
    with budget.waiting():  # for a disk
        machine.sleeps(10)
    assert budget.spent == pytest.approx(117.005)
    assert budget.longest_wait == 10
    machine.sleeps(100)  # training again
    assert budget.spent == pytest.approx(117.01, abs=0.02)
    budget.add_spent(2)
    assert budget.left == pytest.approx(10 - 119.01, abs=0.02)


def test_on_the_real_clock_a_run_ends_as_planned():
    network = Network.init(NetworkSettings(hidden=8, embedding=4), 32, 10, np.random.default_rng(7))
    budget = Budget(20.0)  # compilation may take much of it
    deadline = Deadline(budget, 0.01, 0.01)
    settings = TrainingSettings(batch_size=2, sequence_length=4)
    loop = TrainingLoop(
        network,
        ContiguousBatches(TEXT, 2, 4),
        HELD_OUT,
        settings,
        StepPlan(((0, 500),)),
        jax.random.key(0),
        deadline=deadline,
    )
    budget.add_spent(18.0 - budget.spent)  # so that the test does not take as long
    *_, evaluation, stopped = loop.events()
    step_plan = loop.state.progress.step_plan
    assert (stopped.reason, stopped.step, evaluation.step) == ("finished", step_plan.steps, step_plan.steps)
    assert step_plan.plans[0] == (0, 500)
    rates = loop._rates(0, step_plan.steps)
    assert rates[-1] < rates.max() / 10


def test_a_budget_shorter_than_a_step_is_refused(machine):
    machine.step_seconds = lambda step: 0.1
    with pytest.raises(CharloomError, match=r"a budget of 4s is too short .* take 5\.7 s\. Give --budget 7s or more"):
        run(machine, 4, 100)
