import json
import sys
from pathlib import Path

import pytest
from scripts import results as script

ROOT = Path(__file__).parent.parent


@pytest.fixture
def results():
    return json.loads((ROOT / "docs" / "results.json").read_text("utf-8"))


def with_experiments(results, study, experiments, **changes):
    return {**results, "studies": {study: {name: results["studies"][study][name] for name in experiments}}, **changes}


def test_the_page_is_generated_from_the_results(results):
    assert "\n".join(script.page(results)) + "\n" == (ROOT / "docs" / "results.md").read_text("utf-8")


def test_the_results_have_the_texts_of_the_studies(results):
    assert script.with_current_texts(results) == results


def test_experiments_of_several_runs_are_collected_in_order_without_previews(results):
    char_rnn, char3 = (with_experiments(results, "nietzsche", [name]) for name in ("char_rnn", "char3"))
    char3["studies"]["nietzsche"]["char3"]["preview"] = ["a line of the text"]
    joined = script.joined(script.joined({}, char_rnn, "a"), char3, "b")
    assert list(joined["studies"]["nietzsche"]) == ["char3", "char_rnn"]
    assert "preview" not in joined["studies"]["nietzsche"]["char3"]
    lines = list(script.page(joined))
    (missing,) = [line for line in lines if line.startswith("Not run yet")]
    assert "alphabet/one_to_one" in missing
    assert "nietzsche/char3" not in missing


def test_quick_runs_and_runs_of_another_version_are_refused(results):
    with pytest.raises(SystemExit, match="results of a quick run"):
        script.joined({}, with_experiments(results, "nietzsche", ["char3"], run={"mode": "quick", "seed": 0}), "a")
    with pytest.raises(SystemExit, match="another version"):
        script.joined(results, with_experiments(results, "nietzsche", ["char3"], version="0.0.1"), "a")


def test_without_results_the_message_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(script, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(sys, "argv", ["results.py"])
    with pytest.raises(SystemExit, match="Name a folder"):
        script.main()
