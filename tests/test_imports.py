"""Imports: quick commands must not load JAX, and inference must not load the optimizer."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "code",
    [
        "import charloom",
        "import charloom.text",
        "from charloom import Vocabulary, CharloomError",
        "import charloom.artifacts",
        "from charloom.cli.run import run; run(['--help'])",
        "import charloom.reports",
        "from charloom.cli.run import run; run(['train', '--help'])",
        "from charloom.cli.run import run; run(['reproduce', '--help'])",
        "from charloom.cli.run import run; run(['generate', 'x', '--temperature', 'nan'])",
        "from charloom.cli.run import run; run(['corpora'])",
        "from charloom.cli.run import run; run(['serve', '--help'])",
    ],
)
def test_quick_commands_do_not_load_jax(code):
    check = "import sys; sys.exit('jax' in sys.modules or 'optax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", f"{code}; {check}"], capture_output=True).returncode == 0


@pytest.mark.parametrize("code", ["import charloom; charloom.load", "import charloom.server"])
def test_inference_does_not_load_the_optimizer(code):
    check = "import sys; sys.exit('optax' in sys.modules or 'charloom.training' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", f"{code}; {check}"], capture_output=True).returncode == 0


def test_ctrl_c_during_imports_prints_no_traceback(tmp_path):
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run([sys.executable, "-m", "charloom", "--help"], capture_output=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_public_names():
    import charloom

    for name in charloom.__all__:
        assert getattr(charloom, name) is not None
    assert set(charloom.__all__) <= set(dir(charloom))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        assert charloom.nothing
