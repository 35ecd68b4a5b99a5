from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charloom.settings import TrainingSettings
from charloom.training.schedule import StepPlan, evaluations, learning_rates


def evenly(steps):
    return StepPlan(((0, steps),))


def test_the_rate_warms_up_and_falls_to_zero():
    settings = TrainingSettings(learning_rate=0.01, warmup_ratio=0.1, schedule="cosine")
    rates = learning_rates(settings, evenly(1000), 0, 1000)
    np.testing.assert_allclose(rates[:100], 0.01 * np.arange(1, 101) / 100, rtol=1e-6)
    assert rates.max() == pytest.approx(0.01)
    assert (np.diff(rates[100:]) < 0).all()
    assert rates[550] == pytest.approx(0.005, rel=1e-6)  # half-way down
    assert 0 < rates[-1] < 1e-7


def test_a_constant_rate_does_not_change():
    rates = learning_rates(TrainingSettings(learning_rate=0.01, warmup_ratio=0, schedule="constant"), evenly(50), 0, 50)
    np.testing.assert_array_equal(rates, np.float32(0.01))


def test_rates_do_not_depend_on_how_they_are_grouped():
    settings = TrainingSettings()
    whole = learning_rates(settings, evenly(300), 0, 300)
    np.testing.assert_array_equal(whole[120:200], learning_rates(settings, evenly(300), 120, 80))


def test_evaluations_are_few_and_cheap():
    assert evaluations(1000, 2048, 100) == 20
    assert evaluations(1000, 2048, 111_540) == 5
    assert evaluations(10_000, 2048, 111_540) == 16
    assert 0.025 < 16 * 111_540 / 3 / (10_000 * 2048) < 0.03  # share of the training time
    assert evaluations(500, 2048, 111_540) == 2
    assert evaluations(1000, 64, 10**9) == 1  # at the end, however long it takes
    assert evaluations(1, 2048, 10) == 1


def test_the_rate_reaches_zero_at_the_end_of_the_last_plan():
    settings = TrainingSettings(learning_rate=0.01, warmup_ratio=0.1)
    for steps in (300, 2000):
        step_plan = evenly(1000).replanned(200, steps)
        rates = learning_rates(settings, step_plan, 0, steps)
        np.testing.assert_array_equal(rates[:200], learning_rates(settings, evenly(1000), 0, 200))
        assert (np.diff(rates[101:]) < 0).all()
        assert 0 < rates[-1] < 0.01 * (np.pi / (steps - 200)) ** 2
        assert step_plan.progress(np.array([steps]))[0] == 1


plans_strategy = st.lists(st.tuples(st.integers(1, 200), st.integers(1, 500)), max_size=6)


@given(st.integers(1, 600), plans_strategy)
def test_progress_equals_exact_arithmetic(steps, later):
    step_plan = evenly(steps)
    reached, begin = Fraction(0), 0
    expected = {0: Fraction(0)}

    def go_on(until):
        for step in range(begin + 1, until + 1):
            expected[step] = reached + (step - begin) * (1 - reached) / (step_plan.steps - begin)

    for forward, more in later:
        step = begin + forward
        if step >= step_plan.steps:
            break
        go_on(step)
        reached, begin = expected[step], step
        step_plan = step_plan.replanned(step, step + more)
    go_on(step_plan.steps)
    got = step_plan.progress(np.arange(step_plan.steps + 1))
    np.testing.assert_allclose(got, [float(expected[step]) for step in range(step_plan.steps + 1)], rtol=1e-12)
    assert (np.diff(got) > 0).all()


@given(st.integers(30, 600), st.integers(1, 29), st.integers(1, 500))
def test_a_later_plan_does_not_move_earlier_evaluations(steps, replanned_at, more):
    before = evenly(steps)
    after = before.replanned(replanned_at, replanned_at + more)
    for share in (0.25, 0.5, 1):
        due = before.first_at(share, 0)
        if due <= replanned_at:
            assert after.first_at(share, 0) == due
    due = after.first_at(0.5, replanned_at)
    assert after.progress(np.array([due]))[0] >= 0.5 - 1e-12
    assert due == replanned_at + 1 or after.progress(np.array([due - 1]))[0] < 0.5


def test_a_step_plan_can_be_cut_back_to_an_earlier_step():
    step_plan = evenly(100).replanned(10, 50).replanned(30, 40)
    assert step_plan.plans == ((0, 100), (10, 50), (30, 40))
    assert step_plan.until(30).plans == ((0, 100), (10, 50))
    assert step_plan.until(0).plans == ((0, 100),)
    assert step_plan.replanned(30, 60).plans == ((0, 100), (10, 50), (30, 60))
