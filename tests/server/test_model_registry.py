"""Models whose files change while the server runs."""

import asyncio
import logging
import os
import threading

import pytest

from charloom.errors import ModelFileError
from charloom.server import model_registry
from charloom.server.model_registry import ModelRegistry
from charloom.server.model_session import ModelSession
from tests.server.conftest import eventually


@pytest.fixture
def path(model_files, tmp_path):
    found = tmp_path / "model.safetensors"
    found.write_bytes(model_files["letters"].read_bytes())
    return found


async def watched(models, path, until):
    """Watches the files until a condition holds; `path` has just changed."""
    watch = asyncio.create_task(models.watch())
    await asyncio.sleep(0)
    os.utime(path, ns=(1, 1))
    while not until():
        await asyncio.sleep(0.01)
    watch.cancel()


def test_text_in_a_damaged_file_cannot_forge_log_lines(path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "charloom.server")
    models = ModelRegistry([path])
    monkeypatch.setattr(model_registry, "_POLL_SECONDS", 0.01)
    old = models.named("model")

    def load(name, path):
        raise ModelFileError("charloom_version is \x1b[31m\n2026-01-01 00:00:00 forged" + "x" * 100_000)

    monkeypatch.setattr(ModelSession, "from_file", load)
    asyncio.run(watched(models, path, lambda: "keeping the loaded model" in caplog.text))
    message = caplog.messages[-1]
    forged = "charloom_version is \\x1b[31m\\n2026-01-01 00:00:00 forged"
    assert message.startswith(f"model: keeping the loaded model: {forged}")
    assert message.isprintable()
    assert len(message) < 1000
    assert models.named("model") is old


def test_shutdown_does_not_wait_for_a_loading_model(path, monkeypatch):
    models = ModelRegistry([path])
    monkeypatch.setattr(model_registry, "_POLL_SECONDS", 0.01)
    is_loading, may_end = threading.Event(), threading.Event()

    def load(name, path):
        is_loading.set()
        may_end.wait(60)

    monkeypatch.setattr(ModelSession, "from_file", load)
    # With a thread of asyncio's pool, this would not return before the model is loaded.
    asyncio.run(watched(models, path, is_loading.is_set))
    workers = [thread for thread in threading.enumerate() if thread.name == "charloom work" and thread.is_alive()]
    assert workers
    assert all(thread.daemon for thread in workers)
    may_end.set()
    assert eventually(lambda: not any(thread.is_alive() for thread in workers))
