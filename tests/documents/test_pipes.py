"""Every pipe in the documents answers a line before the next one comes."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from queue import Queue

import jax
import numpy as np
import pytest

from charloom.model import TextModel
from charloom.models import Network
from charloom.settings import NetworkSettings, TextSettings
from charloom.text import Vocabulary

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "src/charloom/cli").glob("*.py"))]
PIPE = re.compile(r"(?:^ *|`)(tail -f [^`\n]*\| charloom score [^`\n]*)", re.MULTILINE)
PIPES = sorted({pipe.strip() for page in PAGES for pipe in PIPE.findall(page.read_text())})
TIME = "2026-11-26 12:00:00 "
GENEROUS = 100
"""Seconds to wait for what comes in two."""

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the documents' pipes are of a Unix shell")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a model that everything surprises."""
    folder = tmp_path_factory.mktemp("pipes")
    vocabulary = Vocabulary("chars", "\n " + "".join(map(chr, range(ord("-"), ord("z") + 1))), "\n")
    settings = NetworkSettings(hidden=8, embedding=4)
    network = Network.init(settings, vocabulary.size, vocabulary.start_id, np.random.default_rng(0))
    network = jax.tree.map(lambda weight: weight * 1000, network)
    TextModel(network, vocabulary, settings, TextSettings(delimiter="\n")).save(folder / "app.safetensors")
    (folder / "threshold.txt").write_text("9\n")
    return folder


def test_the_documents_have_pipes():
    assert len(PIPES) >= 2
    assert any("sed -u" in pipe for pipe in PIPES)


@pytest.mark.parametrize("pipe", PIPES)
def test_a_line_is_answered_before_the_next_comes(folder, pipe):
    programs = [part.split()[0] for part in pipe.split("|")]
    if missing := [program for program in programs[:-1] if shutil.which(program) is None]:
        pytest.skip(f"no {missing[0]} here")
    log = folder / "app.log"
    log.write_text("")
    answers: Queue[str] = Queue()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        ["sh", "-c", pipe],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PATH": path},
        start_new_session=True,
    )
    assert process.stdout is not None
    reader = threading.Thread(target=lambda out: [answers.put(line) for line in out], args=[process.stdout])
    reader.start()
    try:
        for number in range(3):
            with log.open("a") as file:
                file.write(f"{TIME}service {number} is odd\n")
            answer = answers.get(timeout=GENEROUS)
            assert f"service {number} is odd" in answer
            assert (TIME in answer) == ("sed" not in programs)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(GENEROUS)
        reader.join(GENEROUS)
        process.stdout.close()
