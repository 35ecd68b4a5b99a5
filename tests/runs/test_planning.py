"""The length of a run. Each test fakes either the machine's speed or its clock."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from charloom.data import ContiguousBatches, TokenStream, evaluation_pass, ordered_pass, record_pass
from charloom.errors import SettingError
from charloom.models import Network
from charloom.runs import RunSettings, planning
from charloom.runs.calibration import CALIBRATION_PASSES
from charloom.runs.dataset_split import split_corpus
from charloom.runs.planning import closing_seconds, deadline_of, first_step_plan, plan_length, score_pass, shortfall
from charloom.settings import NetworkSettings, TextSettings, TrainingSettings
from charloom.text import Corpus
from charloom.training import Budget, StepPlan, Stopped, follow
from charloom.units import shortest_seconds

SPEED = 100_000.0


@pytest.fixture
def measured(monkeypatch):
    """Fakes the training speed of the machine, and records what is measured."""
    measured = []

    def training_speed(network, batch_size, sequence_length, precision):
        measured.append((network, batch_size, sequence_length))
        return SPEED

    monkeypatch.setattr(planning, "training_speed", training_speed)
    return measured


def budget(seconds, spent=0.0, reserved=0.0):
    return Budget(seconds, spent, reserved, clock=lambda: 0.0, cpu_clock=lambda: 0.0)


def planned(characters, training, clock, **given):
    corpus = Corpus("text", ("the quick brown fox " * (characters // 20),), "")
    settings = RunSettings(sources=("text",), training=training, **given)
    events = []
    settings, speed = follow(
        plan_length(settings, split_corpus(corpus, TextSettings(), training), clock), events.append
    )
    return settings, speed, [event.text for event in events]


def test_a_short_text_is_timed_with_fewer_rows_and_keeps_its_batch_size(measured):
    settings, _, (picked, because) = planned(500, TrainingSettings(budget=20.0), Budget(np.inf))
    assert ", 7 rows × 64, " in picked
    assert measured == [(NetworkSettings(), 7, 64)]
    assert "passes over 450 characters" in because
    assert settings.training.batch_size == 16


@pytest.mark.usefixtures("measured")
def test_a_default_budget_starts_when_the_text_is_read():
    clock = Budget(np.inf, 30.0, 40.0)
    settings, _, (notice, _, _) = planned(5_000, TrainingSettings(), clock)
    assert settings.training.budget == clock.seconds
    assert 90 <= clock.seconds < 200
    assert notice.startswith(f"budget {shortest_seconds(clock.seconds)}, chosen for a text of this length")


def test_a_default_budget_excludes_the_first_compilation(monkeypatch):
    clock = Budget(np.inf)

    def training_speed(network, batch_size, sequence_length, precision):
        clock.add_spent(50.0)  # the time of a compiler on a busy machine
        return SPEED

    monkeypatch.setattr(planning, "training_speed", training_speed)
    settings, _, _ = planned(5_000, TrainingSettings(), clock)
    assert 70 <= settings.training.budget < 120


@pytest.mark.usefixtures("measured")
def test_the_time_for_scoring_is_not_used_for_training():
    def seconds_in(because):
        return float(because.partition(" s of training")[0].rpartition(" ")[2])

    training = TrainingSettings(budget=2_000.0)
    _, speed, (_, because) = planned(2_000_000, replace(training, validation=1_000_000), Budget(np.inf))
    _, other_speed, (_, after) = planned(1_000_020, replace(training, validation=20), Budget(np.inf))
    lost = (1 + CALIBRATION_PASSES) * 1e6 / (3 * speed)
    assert lost > 100
    assert seconds_in(after) == pytest.approx(2_000, abs=10)  # encoding the texts takes a moment
    assert seconds_in(because) == pytest.approx(seconds_in(after) - lost, abs=10)
    assert speed >= other_speed  # the network is not larger


def test_the_first_plan_follows_the_speed_and_the_maximum_count():
    batches = ContiguousBatches(TokenStream.from_documents([np.zeros(100, np.int32)]), 2, 4)
    training = TrainingSettings(budget=10.0)
    assert first_step_plan(training, batches, 800.0, budget(10, spent=1)) == StepPlan(((0, 900),))
    assert first_step_plan(training, batches, 1e9, budget(10**6)) == StepPlan(((0, 2**31 - 1),))
    assert first_step_plan(TrainingSettings(epochs=2.0), batches, 0.0, budget(1)) == StepPlan(((0, 25),))
    with pytest.raises(SettingError, match="a run has at most 2,147,483,647"):
        first_step_plan(TrainingSettings(epochs=1e9), batches, 0.0, budget(1))


@pytest.mark.parametrize("characters", [700, 40_000])
def test_the_deadline_includes_all_blocks_of_the_final_scores(monkeypatch, characters):
    now, slowness, score_blocks = [0.0], [1.0], planning.score_blocks

    def timed(network, blocks):  # the scoring is real, and only the clock is fake
        now[0] += slowness[0] * sum(0.25 * block.steps * block.batch_size for block in blocks)
        return score_blocks(network, blocks)

    monkeypatch.setattr(planning, "score_blocks", timed)
    monkeypatch.setattr(planning, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    network = Network.init(NetworkSettings(hidden=8, embedding=4), 4, 0, np.random.default_rng(0))
    validation = TokenStream.from_documents([np.zeros(characters, np.int32)])
    deadline = deadline_of(budget(10), network, validation, ordered_pass)
    evaluation, score = (
        sum(0.25 * block.steps * block.batch_size for block in blocks(validation))
        for blocks in (evaluation_pass, ordered_pass)
    )
    assert deadline.evaluation_seconds == pytest.approx(evaluation)
    assert deadline.closing_seconds == pytest.approx(score + CALIBRATION_PASSES * evaluation)
    start, slowness[0] = now[0], 3.0
    assert deadline.measure_score(network) == pytest.approx(3 * score)
    assert now[0] - start < 3 * score / 10


def test_closing_includes_an_evaluation_a_calibration_and_a_score(monkeypatch):
    monkeypatch.setattr(planning, "reading_speed", lambda network, batch_size, steps: 1_000.0 * batch_size)
    network = Network.init(NetworkSettings(hidden=8, embedding=4), 4, 0, np.random.default_rng(0))
    validation = TokenStream.from_documents([np.zeros(5_120, np.int32)])  # in ten rows
    assert closing_seconds(network, validation, ordered_pass) == pytest.approx(5.12 + (1 + CALIBRATION_PASSES) * 0.512)
    assert closing_seconds(network, validation, evaluation_pass) == pytest.approx((2 + CALIBRATION_PASSES) * 0.512)


def test_records_are_scored_in_parallel():
    assert score_pass(TextSettings(delimiter="\n")) is record_pass
    assert score_pass(TextSettings()) is ordered_pass


def test_a_run_that_was_slowed_down_says_so():
    def stopped(epoch, reason="finished"):
        return Stopped(step=10, epoch=epoch, reason=reason, chars_per_second=1.0)

    assert shortfall(6.0, stopped(5.0)) == []
    assert shortfall(6.0, stopped(1.0, "interrupted")) == []
    (notice,) = shortfall(6.0, stopped(1.0))
    assert notice.startswith("training made 1 epochs instead of about 6, ")
