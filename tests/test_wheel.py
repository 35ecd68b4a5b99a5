"""The wheel, as a user gets it: built, installed without anything that only developers need, and used."""

import re
import subprocess
from zipfile import ZipFile

import pytest


def test_the_wheel_trains_and_writes(installed, tmp_path):
    (tmp_path / "book.txt").write_text("all work and no play makes jack a dull boy\n" * 60)
    train = [installed.programs / "charloom", "train", "book.txt", "--steps", "20", "--hidden", "16"]
    done = subprocess.run(train, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    generate = [installed.programs / "charloom", "generate", "book.safetensors", "--seed", "1", "--length", "20"]
    done = subprocess.run(generate, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) == 21


@pytest.mark.usefixtures("native_library")
def test_the_kernels_sources_come_with_it(installed):
    done = subprocess.run([installed.programs / "charloom", "show"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "native: compiled for this processor" in done.stdout


def test_nothing_for_developers_comes_with_it(installed):
    listed = subprocess.run(
        [installed.programs / "pip", "list", "--format=freeze"], capture_output=True, text=True, check=True
    )
    names = {line.partition("==")[0].lower() for line in listed.stdout.splitlines()}
    assert "jax" in names
    assert not names & {"pytest", "mypy", "ruff", "hypothesis", "beartype", "keras", "tensorflow_cpu", "torch"}


def test_the_servers_page_comes_with_it(installed):
    code = (
        "from importlib.resources import files; print((files('charloom.server') / 'page' / 'index.html').read_text())"
    )
    done = subprocess.run([installed.programs / "python", "-c", code], capture_output=True, text=True)
    assert "<title>charloom</title>" in done.stdout, done.stderr


def test_the_index_shows_a_readme_whose_links_work_there(installed):
    with ZipFile(installed.wheel) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = wheel.read(name).decode()
    assert len(re.findall(r"^Project-URL: ", metadata, re.MULTILINE)) == 4
    links = re.findall(r"\]\(([^)\s]+)\)", metadata)
    assert len(links) > 20
    assert [link for link in links if not link.startswith("https://")] == []
