"""Private folders of compiled programs: those of the kernels and of JAX have the same checks."""

import os
import stat
import subprocess
import sys

import pytest

from charloom.machine import _compilation_cache
from charloom.own_folders import NotOwnError, own_folder

pytestmark = pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs file owners and modes")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "charloom"


@pytest.mark.parametrize("name", ["kernels", "jax"])
def test_a_folder_is_private(name, cache, tmp_path):
    folder = own_folder(name)
    assert folder == cache / name
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o777)
    with pytest.raises(NotOwnError, match=r"other users can write there\. Remove it"):
        own_folder(name)
    folder.rmdir()
    (tmp_path / "open").mkdir(mode=0o777)
    folder.symlink_to(tmp_path / "open")
    with pytest.raises(NotOwnError, match="other users can write there"):
        own_folder(name)
    folder.unlink()
    os.mkfifo(folder)
    with pytest.raises(NotOwnError, match=r"cannot create|other users can write there"):
        own_folder(name)


def link(path):
    path.symlink_to("/etc/hostname")


def open_file(path):
    path.touch()
    path.chmod(0o666)


def open_folder(path):
    path.mkdir()
    path.chmod(0o777)


@pytest.mark.parametrize("below", [".", "xla_gpu_per_fusion_autotune_cache_dir"])  # XLA creates the second one on a GPU
@pytest.mark.parametrize("make", [os.mkfifo, link, open_file, open_folder])
def test_programs_of_jax_are_this_users_files(make, below):
    folder = _compilation_cache()
    (folder / below).mkdir(exist_ok=True)
    (folder / below / "good-cache").write_bytes(b"\0")
    assert _compilation_cache() == folder
    make(folder / below / "strange-cache")
    with pytest.raises(NotOwnError, match=r"strange-cache: not a file that only this user can write\. Remove it"):
        _compilation_cache()


COMMAND = """
import sys
from charloom.machine import own_process, set_up_jax
own_process()
set_up_jax()
import jax
print(jax.config.jax_compilation_cache_dir)
"""


def test_without_a_private_folder_a_command_runs_with_a_warning(cache, tmp_path):
    programs = cache / "jax"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}

    def run():
        command = [sys.executable, "-c", COMMAND]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)

    assert run().stdout == f"{programs}\n"
    os.mkfifo(programs / "strange-cache")
    done = run()
    assert done.stdout == "None\n"
    problem = f"{programs / 'strange-cache'}: not a file that only this user can write. Remove it"
    said = f"charloom does not cache compiled programs: {problem}"
    assert done.stderr == f"{said}\n"
