"""Servers in separate processes, as users run them."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pytest

from charloom.model import TextModel
from charloom.models import Network
from charloom.settings import NetworkSettings, TextSettings
from charloom.text import Vocabulary

LETTERS = "\n abcdefghijklmnopqrstuvwxyz"


def model_of(seed=0, hidden=24, vocabulary=None, text=None, **settings):
    """Returns a model with random weights that are large enough for clear preferences."""
    vocabulary = vocabulary or Vocabulary("chars", LETTERS)
    shape = NetworkSettings(hidden=hidden, embedding=8, **settings)
    network = Network.init(shape, vocabulary.size, vocabulary.start_id, np.random.default_rng(seed))
    import jax

    network = jax.tree.map(lambda weight: weight * 2, network)
    return TextModel(network, vocabulary, shape, text or TextSettings())


@dataclass
class RunningServer:
    """A running server.

    Attributes:
        url: its address.
        process: its process.
        log_file: its log.
    """

    url: str
    process: subprocess.Popen
    log_file: Path
    client: httpx.Client = field(repr=False)

    @property
    def port(self):
        return int(self.url.rpartition(":")[2])

    @property
    def log(self):
        return self.log_file.read_text()

    def post(self, path, body, **options):
        return self.client.post(f"{self.url}{path}", json=body, **options)

    def complete(self, prompt="", **body):
        answer = self.post("/v1/completions", {"prompt": prompt, **body})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def metric(self, name):
        found = re.search(rf"^{name}(?:_total)? (\S+)$", self.client.get(f"{self.url}/metrics").text, re.MULTILINE)
        assert found, name
        return float(found[1])

    def memory(self):
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        return int(found[1]) * 1024


WITH_LIMITS = """
import sys
from pathlib import Path
from charloom.cli.serve import SWITCH_SECONDS, _set_up_log
from charloom.machine import limited_threads, own_process
from charloom.server import Limits, serve
own_process()
sys.setswitchinterval(SWITCH_SECONDS)
_set_up_log()
ready = lambda address: print(f"{address}: ready", flush=True)
limits = Limits(**eval(sys.argv[2]))
serve([Path(sys.argv[1])], port=0, limits=limits, while_loading=lambda: limited_threads(1), ready=ready)
"""


@contextlib.contextmanager
def serving(folder, *arguments, limits=None, **environment):
    """Yields a server with the given model files and options. `limits` are limits without an option."""
    log = folder / f"server-{time.monotonic_ns()}.log"
    command = [sys.executable, "-m", "charloom", "serve", *map(str, arguments)]
    if "--port" not in arguments:
        command += ["--port", "0"]
    if limits is not None:
        command = [sys.executable, "-c", WITH_LIMITS, str(arguments[0]), repr(limits)]
    with log.open("w") as file:
        process = subprocess.Popen(command, stderr=file, stdout=file, env={**os.environ, **environment})
    try:
        for _ in range(600):
            if (found := re.search(r"^(http://\S+): ready", log.read_text(), re.MULTILINE)) is not None:
                break
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        assert found, log.read_text()
        with httpx.Client(timeout=60) as client:
            yield RunningServer(found[1], process, log, client)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    assert "Traceback" not in log.read_text()


def eventually(condition, seconds=60.0):
    """Waits until a condition holds, and returns whether it does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())


@pytest.fixture(scope="session")
def model_files(tmp_path_factory):
    """Model files of characters, of records and of bytes."""
    folder = tmp_path_factory.mktemp("models")
    records = Vocabulary("chars", LETTERS, "\n")
    models = {
        "letters": model_of(),
        "names": model_of(1, vocabulary=records, text=TextSettings(delimiter="\n")),
        "bytes": model_of(2, vocabulary=Vocabulary.of_bytes(), text=TextSettings(units="bytes"), cell="gru"),
    }
    paths = {name: folder / f"{name}.safetensors" for name in models}
    for name, model in models.items():
        model.save(paths[name])
    return paths


@pytest.fixture(scope="session")
def api(model_files, tmp_path_factory):
    """A server with all these models."""
    with serving(tmp_path_factory.mktemp("server"), *model_files.values()) as server:
        yield server
