from dataclasses import replace

import pytest

from charloom.studies import STUDIES
from charloom.studies.checks import checks_of
from charloom.studies.experiment import keras_figures

EXPERIMENT = STUDIES["nietzsche"].experiments["char_rnn"]
FIGURES = {"parameters": 10, "batching": {"rows": 5}, "losses": [2.0, 1.5], "accuracy": 0.9}
PUBLISHED = {"parameters": 10, "rows": 5, "losses": [1.9, 1.5]}


def failing(experiment=EXPERIMENT, published=PUBLISHED, **changes):
    return [check["check"] for check in checks_of(experiment, FIGURES | changes, published) if not check["holds"]]


def test_published_counts():
    assert len(checks_of(EXPERIMENT, FIGURES, PUBLISHED)) == 3
    assert failing() == []
    assert failing(parameters=11) == ["10 parameters"]
    assert failing(batching={"rows": 6}) == ["5 rows per epoch"]


@pytest.mark.parametrize(("last", "holds"), [(1.5, True), (1.0, True), (1.544, True), (1.546, False), (None, False)])
def test_the_last_loss_is_at_most_3_percent_above_the_published_one(last, holds):
    assert (failing(losses=[2.0, last]) == []) == holds


def test_the_median_accuracy_has_a_minimum():
    experiment = replace(EXPERIMENT, accuracy_at_least=0.9)
    assert failing(experiment) == []
    assert failing(experiment, accuracy=0.89) == ["median accuracy of at least 0.9"]


@pytest.mark.parametrize(("ours", "holds"), [(1.019, True), (0.981, True), (1.03, False), (0.97, False), (None, False)])
def test_the_loss_is_close_to_that_of_keras(monkeypatch, ours, holds):
    figures = {"keras": "3", "experiments": {"a": {"losses": [1.0]}}}
    monkeypatch.setattr("charloom.studies.checks.keras_figures", lambda: figures)
    assert (failing(replace(EXPERIMENT, keras="a"), losses=[ours, 1.0]) == []) == holds


def test_keras_figures_exist_for_every_experiment_that_names_them():
    for contents in STUDIES.values():
        for experiment in contents.experiments.values():
            for one in (experiment, *(experiment.variant(name) for name in experiment.variants)):
                if one.keras is not None:
                    assert len(keras_figures()["experiments"][one.keras]["losses"]) <= experiment.epochs
