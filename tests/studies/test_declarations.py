"""What is declared is what was published: counts, shapes and first rows on the text itself."""

import jax
import pytest

from charloom.settings import NetworkSettings
from charloom.studies import STUDIES
from charloom.studies.description import framing_facts, preview
from charloom.studies.rung import published
from charloom.studies.study_data import StudyData

EVERY = [(study, name) for study, contents in STUDIES.items() for name in contents.rungs]


def test_thirteen_rungs_of_theirs_and_one_of_ours():
    assert len(EVERY) == 14
    assert [name for study, name in EVERY if STUDIES[study].rungs[name].own] == ["unrolled"]
    assert {(study, name) for study, figures in published().items() for name in figures["rungs"]} == {
        pair for pair in EVERY if pair[1] != "unrolled"
    }


@pytest.mark.parametrize(("study", "name"), EVERY)
def test_the_published_parameters_and_rows(study, name, data_folder):
    rung = STUDIES[study].rungs[name]
    figures = published()[study]["rungs"].get(name, {})
    data = StudyData.of(rung)
    model = jax.eval_shape(lambda: rung.initial(data.vocabulary, None))
    if "parameters" in figures:
        assert model.parameters == figures["parameters"]
    if "parameters_about" in figures:
        assert model.parameters == pytest.approx(figures["parameters_about"], rel=0.03)
    if "rows" in figures:
        assert framing_facts(rung.framing, data.train)["rows"] == figures["rows"]
    if "losses" in figures:
        assert rung.epochs == len(figures["losses"])
    if isinstance(rung.model, NetworkSettings) and rung.model.head != "dense":
        assert rung.model.hidden == data.vocabulary.size


def test_the_first_rows_of_the_nietzsche_ladder_are_the_tutorials(data_folder):
    rung = STUDIES["nietzsche"].rungs["char_rnn"]
    data = StudyData.of(rung)
    assert data.vocabulary.characters == "\n !\"'(),-.0123456789:;=?[]_abcdefghijklmnopqrstuvwxyzäæéë"
    shown = preview(rung.framing, data, 0)
    assert shown["inputs"][0] == [42, 44, 31, 32, 27, 29, 31, 0]
    assert shown["inputs"][7] == [0, 0, 0, 45, 47, 42, 42, 41]
    assert shown["targets"] == [[0], [0], [45], [47], [42], [42], [41], [45]]
    assert shown["beginning"].startswith("preface\n\n\nsupposing that truth is a woman--what then?")
    assert shown["round_trip"]


def test_the_stateful_rows_are_the_tutorials(data_folder):
    rung = STUDIES["nietzsche"].rungs["char_stateful_lstm"]
    data = StudyData.of(rung)
    facts = framing_facts(rung.framing, data.train)
    assert (facts["lane_length"], facts["updates_per_epoch"], facts["dropped_tail"]) == (9388, 1173, 61)
    shown = preview(rung.framing, data, 0)
    assert [row["row"] for row in shown["continuity"]] == [0, 64, 128]
    assert "".join(row["text"] for row in shown["continuity"]) == "preface\n\n\nsupposing that"


def test_the_english_majors_split_is_the_articles(data_folder):
    rung = STUDIES["english-major"].rungs["relu_logits"]
    data = StudyData.of(rung)
    assert len(data.held_out) == 1025
    assert sum(block.characters for block in rung.framing.scoring(data.held_out, 0)) == 992
    assert rung.framing.updates_an_epoch(data.train) == (99_993 - 1025 - 33) // 32


@pytest.mark.parametrize(("study", "name"), EVERY)
def test_every_cut_is_smaller_and_of_the_same_kind(study, name):
    rung = STUDIES[study].rungs[name]
    quick, default = rung.cut("quick"), rung.cut("default")
    assert rung.cut("full") == rung
    assert not quick.variants
    assert quick.epochs <= default.epochs <= rung.epochs
    assert type(quick.framing) is type(rung.framing)
