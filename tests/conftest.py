"""Before charloom is imported: types checked at run time, and a cache folder of the tests' own."""

import os
import signal
import tempfile

import pytest
from jaxtyping import install_import_hook

from tests import typechecker

# Workers of pytest-xdist ignore Ctrl-C, and so would the commands that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

_cache = tempfile.TemporaryDirectory(prefix="charloom-tests-")
os.environ["XDG_CACHE_HOME"] = _cache.name

install_import_hook("charloom", f"{typechecker.__name__}.check")


@pytest.fixture(scope="session")
def data_folder() -> str:
    """The folder of corpora that CHARLOOM_DATA names."""
    folder = os.environ.get("CHARLOOM_DATA")
    if not folder:
        pytest.skip("CHARLOOM_DATA names no folder with the corpora")
    return folder
