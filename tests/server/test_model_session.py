"""Models as they are served: what does not fit into memory is refused before it is built."""

from dataclasses import replace

import pytest

from charloom.errors import ModelFileError
from charloom.server import model_session
from charloom.server.model_session import ModelSession
from tests.server.conftest import model_of


def test_a_model_without_memory_for_it_is_refused(model_files, monkeypatch):
    size = model_files["letters"].stat().st_size
    monkeypatch.setattr(model_session, "available_memory_bytes", lambda: 4 * size - 1)
    with pytest.raises(ModelFileError, match="GB are free"):
        ModelSession.from_file("letters", model_files["letters"])
    monkeypatch.setattr(model_session, "available_memory_bytes", lambda: None)  # the system does not tell
    assert ModelSession.from_file("letters", model_files["letters"]).name == "letters"


def test_a_window_beyond_all_bounds_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    replace(model_of(), training={"window": 2**31 - 1}).save(path)
    monkeypatch.setattr(model_session, "read_prompt", lambda *arguments: pytest.fail("a stream was built"))
    with pytest.raises(ModelFileError):
        ModelSession.from_file("model", path)
