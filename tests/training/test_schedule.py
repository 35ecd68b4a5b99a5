import numpy as np
import pytest

from charloom.settings import TrainingSettings
from charloom.training.schedule import default_updates, evaluation_interval, learning_rates


def test_the_rate_warms_up_and_falls_to_zero():
    settings = TrainingSettings(learning_rate=0.01, warmup=0.1, schedule="cosine")
    rates = learning_rates(settings, 0, 1000, 1000)
    np.testing.assert_allclose(rates[:100], 0.01 * np.arange(1, 101) / 100, rtol=1e-6)
    assert rates.max() == pytest.approx(0.01)
    assert (np.diff(rates[100:]) < 0).all()
    assert rates[550] == pytest.approx(0.005, rel=1e-6)  # half-way down
    assert 0 < rates[-1] < 1e-7


def test_a_constant_rate_stays():
    rates = learning_rates(TrainingSettings(learning_rate=0.01, warmup=0, schedule="constant"), 0, 50, 50)
    np.testing.assert_array_equal(rates, np.float32(0.01))


def test_rates_do_not_depend_on_where_they_are_cut():
    settings = TrainingSettings()
    whole = learning_rates(settings, 0, 300, 300)
    np.testing.assert_array_equal(whole[120:200], learning_rates(settings, 120, 80, 300))


def test_the_default_length():
    assert default_updates(300) == 3000
    assert default_updates(2) == 1000
    assert default_updates(10**6) == 10_000


def test_evaluations_are_few_and_cheap():
    assert evaluation_interval(1000, 2048, 100) == 50  # twenty
    interval = evaluation_interval(1000, 2048, 111_540)
    assert 111_540 / 3 / (interval * 2048) < 0.101  # a tenth of the time
    assert evaluation_interval(1000, 64, 10**9) == 1000  # one at the end, whatever it costs
    assert evaluation_interval(1, 2048, 10) == 1
