import math
from pathlib import Path

import pytest
from hypothesis import given, settings
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
def test_more_time_never_picks_a_smaller_network(characters, seconds, factor):
    choice, longer = picked(characters, seconds), picked(characters, factor * seconds)
    assert longer.network.hidden >= choice.network.hidden
    # A machine that is twice as fast is equivalent to twice the time.
    assert picked(characters, seconds, factor * SPEED).network == longer.network


@given(st.integers(10_000, 10**9), seconds)
def test_more_passes_mean_more_dropout(characters, seconds):
    less = picked(10 * characters, seconds)
    assert picked(characters, seconds).training.dropout >= less.training.dropout


@given(characters, seconds)
def test_what_is_given_is_left_alone(characters, seconds):
    network = NetworkSettings(cell="gru", hidden=33, layers=3, embedding=7)
    training = TrainingSettings(
        batch_size=5, sequence_length=9, dropout=0.45, learning_rate=0.1, weight_dropout=0.2, weight_decay=0.5
    )
    names = {
        "cell",
        "hidden",
        "layers",
        "embedding",
        "batch_size",
        "sequence_length",
        "dropout",
        "learning_rate",
        "weight_dropout",
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
    # A layer above the first multiplies the outputs of the layer below and its own state.
    for layers in (1, 2, 3):
        choice = picked(10**6, 60, given={"hidden"}, network=NetworkSettings(hidden=256, layers=layers))
        assert choice.chars_per_second == pytest.approx(SPEED * (1024 + 64) / ((2 * layers - 1) * 1024 + 64))
    # With thousands of characters the head takes longer than the layer.
    network = NetworkSettings(hidden=256)
    many = picked(10**6, 60, given={"hidden"}, network=network, vocab_size=5000)
    assert many.chars_per_second == pytest.approx(SPEED * (1024 + 64) / (1024 + 5000))
    assert picked(10**6, 60, vocab_size=5000).network.hidden < picked(10**6, 60).network.hidden


def test_weight_dropout_is_picked_only_for_cells_with_recurrent_weights():
    for cell, expected in (("elman", 0.35), ("mingru", 0.0)):
        network = NetworkSettings(cell=cell, hidden=256, layers=2)
        choice = picked(10**5, 1000, given={"hidden"}, network=network)
        assert (choice.training.weight_dropout, choice.training.dropout) == (expected, 0.5)
    assert choice.what.startswith("minGRU, 2 × 256 units, ")


def test_two_lines_describe_the_choice():
    choice = picked(1_000_000, 60, given={"hidden"}, network=NetworkSettings(hidden=256))
    assert choice.what.startswith("LSTM, 1 × 256 units, embedding 64, 16 rows × 64, dropout ")
    assert choice.why == (
        "at about 100,000 characters per second, 60 s of training are 6 passes over 1,000,000 characters"
    )


@pytest.mark.parametrize(
    ("speed", "digits"),
    [(9.4, "9"), (87.6, "88"), (123.4, "120"), (98_765, "99,000"), (123_456, "120,000"), (2_555_555, "2,600,000")],
)
def test_predicted_figures_have_two_digits(speed, digits):
    choice = picked(10**6, 1.0, speed, given={"hidden"}, network=NetworkSettings(hidden=256))
    assert choice.why.startswith(f"at about {digits} characters per second, 1 s of training ")


@pytest.mark.parametrize(
    ("passes", "dropout", "weight_dropout"),
    [
        (0.5, 0.0, 0.0),
        (1, 0.0, 0.0),
        (6, 0.2, 0.0),
        (math.sqrt(6 * 12), 0.25, 0.0),
        (10, None, 0.0),
        (12, 0.3, None),
        (math.sqrt(10 * 20), None, 0.08),
        (20, None, 0.15),
        (math.sqrt(20 * 60), None, 0.25),
        (60, None, 0.35),
        (100, 0.5, 0.35),
        (1000, 0.5, 0.35),
    ],
)
def test_dropout_matches_the_design(passes, dropout, weight_dropout):
    # The figures of docs/design/recipe.md, interpolated over the logarithm of the passes.
    characters = int(60 * SPEED / passes)
    training = picked(characters, 60, given={"hidden"}, network=NetworkSettings(hidden=256)).training
    assert dropout is None or training.dropout == pytest.approx(dropout, abs=0.006)
    assert weight_dropout is None or training.weight_dropout == pytest.approx(weight_dropout, abs=0.006)
    assert training.weight_decay == 0.05


@pytest.mark.parametrize(("hidden", "rate"), [(64, 0.01), (384, 0.01), (512, 0.0075), (768, 0.005), (2048, 0.0019)])
def test_a_wide_layer_has_a_proportionally_lower_learning_rate(hidden, rate):
    choice = picked(10**6, 60, given={"hidden"}, network=NetworkSettings(hidden=hidden))
    assert choice.training.learning_rate == pytest.approx(rate, abs=1e-4)


def weights(hidden, vocab_size=64):
    """The number of multiplications in a step of an LSTM and its head."""
    return 4 * hidden * hidden + hidden * vocab_size


@pytest.mark.parametrize(
    ("characters", "speed", "per_weight"), [(10**8, SPEED, 32), (10**5, SPEED / 20, 8), (10**6, SPEED / 2, 8)]
)
@pytest.mark.parametrize("budget", [30.0, 120.0, 240.0])
def test_the_network_size_follows_the_characters_per_weight(characters, speed, per_weight, budget):
    hidden = picked(characters, budget, speed).network.hidden
    read = budget * speed * weights(256) / weights(hidden)
    passes = read / characters
    between = 2 < passes < 6  # there the characters per weight fall from 32 to 8
    assert (8 if between else per_weight) / 2 < read / weights(hidden) < (32 if between else per_weight) * 2


@given(st.integers(10_000, 10**8), seconds)
@settings(max_examples=30)
def test_no_network_can_memorize_its_text(characters, seconds):
    hidden = picked(characters, seconds).network.hidden
    assert hidden == 64 or weights(hidden) <= 2.5 * characters


def test_scoring_is_three_times_as_fast_and_training_always_gets_a_part():
    def left(closing):
        network = NetworkSettings(hidden=256)
        return pick(network, TrainingSettings(), {"hidden"}, 10**6, 64, 60.0, SPEED, closing).why.split(
            " per second, "
        )[1]

    assert left(3_000_000).startswith("50 s of ")
    assert left(10**9).startswith("6 s of ")


@pytest.mark.parametrize(
    ("characters", "seconds"),
    [(1, 20), (40_000, 20), (250_000, 50), (1_000_000, 100), (2_250_000, 150), (9_000_000, 300), (36_000_000, 600)],
)
def test_the_default_budget_grows_with_the_root_of_the_length(characters, seconds):
    assert default_budget(characters) == seconds


def test_a_longer_text_has_a_longer_default_budget():
    budgets = [default_budget(10**power) for power in range(1, 12)]
    assert budgets == sorted(budgets)
    assert 60 <= default_budget(10**6) <= 120
    assert all(budget % 10 == 0 for budget in budgets)


def test_the_examples_of_the_documentation_are_picked():
    page = (Path(__file__).parents[2] / "docs" / "design" / "recipe.md").read_text("utf-8")
    table = page.partition("## Examples")[2].partition("## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "| " in line]
    examples = [row for row in rows if row[0][0].isdigit()]
    assert len(examples) == 7
    for row in examples:
        characters, seconds, hidden, passes, dropout, weight_dropout, rate = (
            float(cell.replace(",", "").removesuffix(" s")) for cell in row
        )
        choice = picked(int(characters), seconds, speed=150_000.0)
        training = choice.training
        assert (choice.network.hidden, training.dropout, training.weight_dropout) == (hidden, dropout, weight_dropout)
        assert training.learning_rate == rate
        assert choice.chars_per_second * seconds / characters == pytest.approx(passes, rel=5e-3)
