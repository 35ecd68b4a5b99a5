"""The declarations match the publications: counts, shapes and the first rows of the text."""

import jax
import pytest

from charloom.settings import NetworkSettings
from charloom.studies import STUDIES
from charloom.studies.description import batching_summary, preview
from charloom.studies.experiment import published
from charloom.studies.study_data import StudyData

EVERY = [(study, name) for study, contents in STUDIES.items() for name in contents.experiments]


def test_thirteen_published_experiments_and_one_of_our_own():
    assert len(EVERY) == 14
    assert [name for study, name in EVERY if STUDIES[study].experiments[name].own] == ["longer_sequence"]
    assert {(study, name) for study, figures in published().items() for name in figures["experiments"]} == {
        pair for pair in EVERY if pair[1] != "longer_sequence"
    }


@pytest.mark.parametrize(("study", "name"), EVERY)
def test_the_published_parameters_and_rows(study, name, data_folder):
    experiment = STUDIES[study].experiments[name]
    figures = published()[study]["experiments"].get(name, {})
    data = StudyData.of(experiment)
    model = jax.eval_shape(lambda: experiment.initial(data.vocabulary, None))
    if "parameters" in figures:
        assert model.parameters == figures["parameters"]
    if "parameters_about" in figures:
        assert model.parameters == pytest.approx(figures["parameters_about"], rel=0.03)
    if "rows" in figures:
        assert batching_summary(experiment.batching, data.train)["rows"] == figures["rows"]
    if "losses" in figures:
        assert experiment.epochs == len(figures["losses"])
    if isinstance(experiment.model, NetworkSettings) and experiment.model.head != "dense":
        assert experiment.model.hidden == data.vocabulary.size


def test_the_first_windows_of_the_nietzsche_ladder_match_the_tutorial(data_folder):
    experiment = STUDIES["nietzsche"].experiments["char_rnn"]
    data = StudyData.of(experiment)
    assert data.vocabulary.characters == "\n !\"'(),-.0123456789:;=?[]_abcdefghijklmnopqrstuvwxyzäæéë"
    shown = preview(experiment.batching, data, 0)
    assert shown["inputs"][0] == [42, 44, 31, 32, 27, 29, 31, 0]
    assert shown["inputs"][7] == [0, 0, 0, 45, 47, 42, 42, 41]
    assert shown["targets"] == [[0], [0], [45], [47], [42], [42], [41], [45]]
    assert shown["beginning"].startswith("preface\n\n\nsupposing that truth is a woman--what then?")
    assert shown["round_trip"]


def test_the_stateful_rows_match_the_tutorial(data_folder):
    experiment = STUDIES["nietzsche"].experiments["char_stateful_lstm"]
    data = StudyData.of(experiment)
    facts = batching_summary(experiment.batching, data.train)
    assert (facts["row_length"], facts["steps_per_epoch"], facts["dropped_tail"]) == (9388, 1173, 61)
    shown = preview(experiment.batching, data, 0)
    assert [row["row"] for row in shown["continuity"]] == [0, 64, 128]
    assert "".join(row["text"] for row in shown["continuity"]) == "preface\n\n\nsupposing that"


def test_the_split_of_the_english_major_matches_the_article(data_folder):
    experiment = STUDIES["english-major"].experiments["relu_logits"]
    data = StudyData.of(experiment)
    assert len(data.held_out) == 1025
    assert sum(block.characters for block in experiment.batching.scoring(data.held_out, 0)) == 992
    assert experiment.batching.steps_per_epoch(data.train) == (99_993 - 1025 - 33) // 32


@pytest.mark.parametrize(("study", "name"), EVERY)
def test_shorter_modes_are_smaller_and_of_the_same_kind(study, name):
    experiment = STUDIES[study].experiments[name]
    quick, default = experiment.cut("quick"), experiment.cut("default")
    assert experiment.cut("full") == experiment
    assert not quick.variants
    assert quick.epochs <= default.epochs <= experiment.epochs
    assert type(quick.batching) is type(experiment.batching)
