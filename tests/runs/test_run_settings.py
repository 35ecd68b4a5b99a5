from pathlib import Path

import pytest

from charloom.errors import SettingError
from charloom.runs import RunSettings
from charloom.settings import NetworkSettings, TextSettings, TrainingSettings


def test_paths_become_absolute_and_names_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "python-reference").write_text("a file with the name of a known corpus")
    settings = RunSettings(
        sources=("-", "nietzsche", "python-reference", "#a.txt", "b.txt", "/c.txt"), out=Path("m"), cache=Path("texts")
    )
    got = settings.with_absolute_paths()
    here = str(tmp_path)
    assert got.sources == ("-", "nietzsche", f"{here}/python-reference", f"{here}/#a.txt", f"{here}/b.txt", "/c.txt")
    assert (got.out, got.cache) == (tmp_path / "m", tmp_path / "texts")
    assert RunSettings(sources=("-",)).with_absolute_paths() == RunSettings(sources=("-",))


def test_records_are_not_encoded_into_a_cache(tmp_path):
    RunSettings(sources=("a",), cache=tmp_path)
    RunSettings(sources=("a",), text=TextSettings(delimiter="\n"))
    with pytest.raises(SettingError, match="cache applies to continuous text"):
        RunSettings(sources=("a",), cache=tmp_path, text=TextSettings(delimiter="\n"))


def test_weight_dropout_needs_recurrent_weights():
    training = TrainingSettings(weight_dropout=0.1)
    RunSettings(sources=("a",), training=training)
    with pytest.raises(SettingError, match="weight_dropout applies to recurrent weights; mingru has none"):
        RunSettings(sources=("a",), network=NetworkSettings(cell="mingru"), training=training)
