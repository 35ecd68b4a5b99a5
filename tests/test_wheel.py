"""The wheel: built, installed without developer dependencies, and used."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A separate environment with only the wheel and its dependencies."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("charloom-*.whl")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    constraints = ROOT / "constraints" / f"python{sys.version_info[0]}.{sys.version_info[1]}.txt"
    pinned = ["--constraint", constraints] if constraints.exists() else []
    install = [folder / "venv" / "bin" / "pip", "install", "--quiet", "--no-compile", *pinned, wheel]
    subprocess.run(install, check=True)
    return folder / "venv" / "bin"


def test_the_wheel_trains_and_generates(installed, tmp_path):
    (tmp_path / "book.txt").write_text("all work and no play makes jack a dull boy\n" * 60)
    train = [installed / "charloom", "train", "book.txt", "--steps", "20", "--hidden", "16"]
    done = subprocess.run(train, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    generate = [installed / "charloom", "generate", "book.safetensors", "--seed", "1", "--length", "20"]
    done = subprocess.run(generate, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) == 21


@pytest.mark.usefixtures("native_library")
def test_the_wheel_has_the_kernel_sources(installed):
    done = subprocess.run([installed / "charloom", "show"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "native: compiled for this processor" in done.stdout


def test_the_wheel_has_no_developer_files(installed):
    listed = subprocess.run([installed / "pip", "list", "--format=freeze"], capture_output=True, text=True, check=True)
    names = {line.partition("==")[0].lower() for line in listed.stdout.splitlines()}
    assert "jax" in names
    assert not names & {"pytest", "mypy", "ruff", "hypothesis", "beartype", "keras", "tensorflow_cpu", "torch"}


def test_the_wheel_has_the_server_page(installed):
    code = (
        "from importlib.resources import files; print((files('charloom.server') / 'page' / 'index.html').read_text())"
    )
    done = subprocess.run([installed / "python", "-c", code], capture_output=True, text=True)
    assert "<title>charloom</title>" in done.stdout, done.stderr
