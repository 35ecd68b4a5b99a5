"""Before charloom is imported: types checked at run time, and a cache folder of the tests' own.

CHARLOOM_TEST_CACHE names a folder that keeps compiled kernels from one run of the tests to the next.
"""

import os
import signal
import tempfile
from pathlib import Path

import hypothesis
import pytest
from jaxtyping import install_import_hook

from tests import typechecker

# Workers of pytest-xdist ignore Ctrl-C, and so would the commands that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

if "PYTEST_XDIST_WORKER" not in os.environ:  # workers have the folder of the process that they work for
    _cache = tempfile.TemporaryDirectory(prefix="charloom-tests-")
    os.environ["XDG_CACHE_HOME"] = os.environ.get("CHARLOOM_TEST_CACHE") or _cache.name

# Of what tests compile themselves, and of operations one by one; charloom's programs have their own level.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

# How long an example takes decides nothing: a machine may be slow, or busy.
hypothesis.settings.register_profile("charloom", deadline=None)
hypothesis.settings.load_profile("charloom")

install_import_hook("charloom", f"{typechecker.__name__}.check")

from charloom.machine import own_process  # noqa: E402  # behind the hook

own_process()


@pytest.fixture(scope="session")
def data_folder() -> str:
    """The folder of corpora that CHARLOOM_DATA names."""
    folder = os.environ.get("CHARLOOM_DATA")
    if not folder:
        pytest.skip("CHARLOOM_DATA names no folder with the corpora")
    return folder


@pytest.fixture(scope="session")
def native_library() -> Path:
    """The native kernels' library; sources that do not compile fail the test."""
    from charloom.kernels.build import KernelsUnavailableError, compile_command, library_path

    try:
        compile_command()
    except KernelsUnavailableError as problem:
        pytest.skip(f"no native kernels: {problem}")  # without a compiler charloom runs on the reference, as tested
    return library_path()


@pytest.fixture(params=["native", "reference"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both kinds of kernels, for layers of any size."""
    if request.param == "native":
        request.getfixturevalue("native_library")
    monkeypatch.setenv("CHARLOOM_KERNELS", request.param)
    return str(request.param)
