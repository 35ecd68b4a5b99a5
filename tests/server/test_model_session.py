"""Models that do not fit into memory are refused before they are loaded."""

from dataclasses import replace

import pytest

from charloom.errors import ModelFileError
from charloom.server import model_session
from charloom.server.model_session import ModelSession
from tests.server.conftest import model_of


def test_a_model_that_does_not_fit_into_memory_is_refused(model_files, monkeypatch):
    size = model_files["letters"].stat().st_size
    monkeypatch.setattr(model_session, "available_memory_bytes", lambda: 4 * size - 1)
    with pytest.raises(ModelFileError, match="GB are free"):
        ModelSession.from_file("letters", model_files["letters"])
    monkeypatch.setattr(model_session, "available_memory_bytes", lambda: None)  # unknown on this system
    assert ModelSession.from_file("letters", model_files["letters"]).name == "letters"


def test_a_huge_window_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    replace(model_of(), training={"window": 2**31 - 1}).save(path)
    monkeypatch.setattr(model_session, "read_prompt", lambda *arguments: pytest.fail("a state was created"))
    with pytest.raises(ModelFileError):
        ModelSession.from_file("model", path)
