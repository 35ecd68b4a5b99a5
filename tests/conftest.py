"""Setup before charloom is imported: type checks at run time, and a separate cache folder.

CHARLOOM_TEST_CACHE names a folder that keeps compiled kernels between runs of the tests.
CHARLOOM_TEST_WHEEL names a wheel to test, instead of the one that the tests build.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import hypothesis
import pytest
from filelock import FileLock
from jaxtyping import install_import_hook

from tests import typechecker

# Workers of pytest-xdist ignore Ctrl-C, and the commands that they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

if "PYTEST_XDIST_WORKER" not in os.environ:  # workers use the folder of the main process
    _cache = tempfile.TemporaryDirectory(prefix="charloom-tests-")
    os.environ["XDG_CACHE_HOME"] = os.environ.get("CHARLOOM_TEST_CACHE") or _cache.name

# This applies to what tests compile and to single operations. charloom's programs set their own level.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

# The time of an example is not checked, because a machine may be slow or busy.
hypothesis.settings.register_profile("charloom", deadline=None)
hypothesis.settings.load_profile("charloom")

install_import_hook("charloom", f"{typechecker.__name__}.check")

from charloom.machine import own_process  # noqa: E402  # after the hook

own_process()


@pytest.fixture(scope="session")
def data_folder() -> str:
    """The folder of corpora that CHARLOOM_DATA names."""
    folder = os.environ.get("CHARLOOM_DATA")
    if not folder:
        pytest.skip("CHARLOOM_DATA does not name a folder with the corpora")
    return folder


@pytest.fixture(scope="session")
def native_library() -> Path:
    """The path of the native kernels' library. If the sources do not compile, the test fails."""
    from charloom.kernels.build import KernelsUnavailableError, compile_command, library_path

    try:
        compile_command()
    except KernelsUnavailableError as problem:
        pytest.skip(f"no native kernels: {problem}")  # charloom then uses the reference
    return library_path()


@pytest.fixture(params=["native", "reference"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both kinds of kernels, for layers of any size."""
    if request.param == "native":
        request.getfixturevalue("native_library")
    monkeypatch.setenv("CHARLOOM_KERNELS", request.param)
    return str(request.param)


class Installed(NamedTuple):
    """charloom as a user has it.

    Attributes:
        programs: the folder of `charloom`, `python` and `pip` of an environment with nothing else in it.
        wheel: the file that it was installed from.
        pip: environment variables with which pip finds that wheel, and the versions that were tested.
    """

    programs: Path
    wheel: Path
    pip: dict[str, str]


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel, built and installed once for all workers."""
    root = Path(__file__).parents[1]
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "installed"
    links = " ".join(filter(None, [os.environ.get("PIP_FIND_LINKS"), str(folder / "wheels")]))
    pip = {"PIP_FIND_LINKS": links, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_COMPILE": "1"}
    constraints = root / "constraints" / f"python{sys.version_info[0]}.{sys.version_info[1]}.txt"
    if constraints.exists():
        pip["PIP_CONSTRAINT"] = str(constraints)
    programs = folder / "venv" / "bin"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            if given := os.environ.get("CHARLOOM_TEST_WHEEL"):
                (folder / "wheels").mkdir(parents=True)
                shutil.copy(given, folder / "wheels")
            else:
                build = [
                    sys.executable,
                    "-m",
                    "build",
                    "--wheel",
                    "--no-isolation",
                    "--outdir",
                    folder / "wheels",
                    root,
                ]
                subprocess.run(build, check=True, capture_output=True)
            subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
            subprocess.run([programs / "pip", "install", "--quiet", "charloom"], check=True, env=os.environ | pip)
    (wheel,) = (folder / "wheels").glob("charloom-*.whl")
    return Installed(programs, wheel, pip)
