import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charloom.runs.recipe import default_budget, pick, reference
from charloom.settings import NetworkSettings, TrainingSettings

SPEED = 100_000.0
characters = st.integers(100, 10**9)
seconds = st.floats(1, 10**5)


def picked(characters, seconds, speed=SPEED, given=frozenset(), network=None, training=None, vocab_size=64):
    network, training = network or NetworkSettings(), training or TrainingSettings()
    return pick(network, training, given, characters, vocab_size, seconds, speed)


@given(characters, seconds, st.floats(1.5, 100))
def test_more_time_is_never_for_a_smaller_network(characters, seconds, factor):
    choice, longer = picked(characters, seconds), picked(characters, factor * seconds)
    assert longer.network.hidden >= choice.network.hidden
    # Twice as fast a machine is as good as twice the time.
    assert picked(characters, seconds, factor * SPEED).network == longer.network


@given(st.integers(10_000, 10**9), seconds)
def test_what_is_read_more_often_is_read_with_more_dropout(characters, seconds):
    less = picked(10 * characters, seconds)
    assert picked(characters, seconds).training.dropout >= less.training.dropout


@given(characters, seconds)
def test_what_is_given_is_left_alone(characters, seconds):
    network = NetworkSettings(cell="gru", hidden=33, layers=3, embedding=7)
    training = TrainingSettings(
        lanes=5, unroll_length=9, dropout=0.45, learning_rate=0.1, weight_drop=0.2, weight_decay=0.5
    )
    names = {
        "cell",
        "hidden",
        "layers",
        "embedding",
        "lanes",
        "unroll_length",
        "dropout",
        "learning_rate",
        "weight_drop",
        "weight_decay",
    }
    choice = picked(characters, seconds, given=names, network=network, training=training)
    assert (choice.network, choice.training) == (network, training)
    alone = picked(characters, seconds, given={"hidden"}, network=network)
    assert alone.network.hidden == 33


def test_the_speed_follows_from_the_references():
    assert reference(NetworkSettings(cell="gru", hidden=40, layers=2)) == NetworkSettings(cell="gru")
    for hidden, factor in ((256, 1), (512, 4 * (2048 + 64) / (2048 + 128)), (128, (512 + 64) / (4 * (512 + 32)))):
        network = NetworkSettings(hidden=hidden)
        choice = picked(10**6, 60, given={"hidden"}, network=network)
        assert choice.chars_per_second == pytest.approx(SPEED / factor)
    # Thousands of characters make a head that takes longer than the layer.
    network = NetworkSettings(hidden=256)
    many = picked(10**6, 60, given={"hidden"}, network=network, vocab_size=5000)
    assert many.chars_per_second == pytest.approx(SPEED * (1024 + 64) / (1024 + 5000))
    assert picked(10**6, 60, vocab_size=5000).network.hidden < picked(10**6, 60).network.hidden


def test_two_lines_tell_it():
    choice = picked(1_000_000, 60, given={"hidden"}, network=NetworkSettings(hidden=256))
    assert choice.what.startswith("1 × 256 lstm units, embedding 64, 16 lanes × 64, dropout ")
    assert re.fullmatch(
        r"about 100,000 characters a second here, 6,000,000 in 60 s: 6 times the 1,000,000 there are", choice.why
    )


def test_a_longer_text_has_a_longer_default():
    budgets = [default_budget(10**power) for power in range(1, 12)]
    assert budgets == sorted(budgets)
    assert 60 <= default_budget(10**6) <= 120
    assert all(budget % 10 == 0 for budget in budgets)
