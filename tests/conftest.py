"""Setup before charloom is imported: type checks at run time, and a separate cache folder.

CHARLOOM_TEST_CACHE names a folder that keeps compiled kernels between runs of the tests.
"""

import os
import signal
import tempfile
from pathlib import Path

import hypothesis
import pytest
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
