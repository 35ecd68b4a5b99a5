"""The wheel, as a user gets it: built, installed without anything that only developers need, and used."""

import json
import os
import re
import subprocess
from pathlib import Path
from zipfile import ZipFile

import pytest
from scripts import wheels

from charloom.kernels.build import compile_command
from charloom.kernels.instruction_sets import processor_features, this_system, usable


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
    asked = os.environ | {"CXX": compile_command()[0]}
    done = subprocess.run([installed.programs / "charloom", "show"], capture_output=True, text=True, env=asked)
    assert done.returncode == 0, done.stderr
    assert "native: compiled for this processor" in done.stdout


@pytest.fixture
def without_compiler(installed, request, tmp_path):
    """A wheel with kernels, and the environment variables of a machine without a compiler and with empty caches.

    It is the one that CHARLOOM_TEST_WHEEL names. Otherwise it carries this machine's library, which takes no time to
    compile again, and Python loads it from a folder.
    """
    variables = {"PATH": str(installed.programs), "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    if "CHARLOOM_TEST_WHEEL" in os.environ:
        return installed.wheel, variables
    library = request.getfixturevalue("native_library")
    found = usable(this_system(), processor_features())
    if not found:  # such as a processor older than x86-64-v2, on which charloom compiles its kernels
        pytest.skip(f"wheels have no library for this processor ({this_system()})")
    platform, _ = wheels.PLATFORMS[this_system()]
    wheel = wheels.platform_wheel(installed.wheel, platform, {found[0].name: library}, tmp_path)
    with ZipFile(wheel) as opened:
        opened.extractall(tmp_path / "unpacked")
    return wheel, variables | {"PYTHONPATH": str(tmp_path / "unpacked")}


def charloom(installed, variables, *arguments):
    command = [installed.programs / "python", "-m", "charloom", *arguments]
    return subprocess.run(command, cwd=variables["HOME"], capture_output=True, text=True, env=variables)


def test_a_wheel_with_kernels_needs_no_compiler(installed, without_compiler):
    _, variables = without_compiler
    done = charloom(installed, variables, "show", "--json")
    assert done.returncode == 0, done.stderr
    best = usable(this_system(), processor_features())[0].label
    assert json.loads(done.stdout)["kernels"].startswith(f"native: {best} from the wheel, the best of ")
    assert done.stderr == ""
    Path(variables["HOME"], "book.txt").write_text("all work and no play makes jack a dull boy\n" * 60)
    done = charloom(installed, variables, "train", "book.txt", "--steps", "20", "--hidden", "64")
    assert done.returncode == 0, done.stderr
    done = charloom(installed, variables, "generate", "book.safetensors", "--seed", "1", "--length", "20")
    assert (done.returncode, len(done.stdout), done.stderr) == (0, 21, "")
    assert not list(Path(variables["HOME"], "cache").rglob("*.so"))


def test_a_wheel_with_kernels_says_which_platform_it_is_for(without_compiler):
    wheel, _ = without_compiler
    platform, _ = wheels.PLATFORMS[this_system()]
    assert wheel.name.endswith(f"-py3-none-{platform}.whl")
    with ZipFile(wheel) as opened:
        (name,) = (name for name in opened.namelist() if name.endswith(".dist-info/WHEEL"))
        lines = opened.read(name).decode().splitlines()
        manifest = json.loads(opened.read("charloom/kernels/libraries/manifest.json"))
        listed = {name for name in opened.namelist() if name.endswith(".so")}
    assert "Root-Is-Purelib: false" in lines
    assert f"Tag: py3-none-{platform}" in lines
    assert listed == {f"charloom/kernels/libraries/{name}.so" for name in manifest["libraries"]}
    assert manifest["sources"] == wheels.manifest({})["sources"]


def test_wheels_are_compiled_for_the_oldest_jax_that_is_allowed():
    """XLA accepts handlers of older versions of its interface, and refuses those of newer ones."""
    project = (wheels.ROOT / "pyproject.toml").read_text()
    (oldest,) = re.findall(r'^ {4}"jax>=([\d.]+)",$', project, re.MULTILINE)
    assert f"{oldest}.0" == wheels.JAXLIB


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
