"""The native kernels' library: compiled once for this processor, and kept in the user's cache.

A library that others could have written is never loaded: its folder and the file must be this user's own, be no
links, and be closed to the writing of others.
"""

import hashlib
import logging
import os
import platform
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

logger = logging.getLogger("charloom")

_SOURCES = (
    *("vectors.h", "threads.h", "product.h", "cells.h", "layer.h", "forward.h", "backward.h", "sequence.h"),
    *("dense.h", "sampling.h", "generator.h", "handlers.cc"),
)
_FLAGS = ("-std=c++20", "-O2", "-pthread")
_SHARED = ("-fPIC", "-shared")
_NAMES = ("c++", "g++", "clang++")
_SECONDS = 300


class KernelsUnavailableError(Exception):
    """Why there is no library, in a few words."""


def library_path() -> Path:
    """Returns the path of the library for this processor, compiled where it is not there yet.

    Raises:
        KernelsUnavailableError: it cannot be had; the message says why.
    """
    if sys.platform not in ("linux", "darwin"):
        raise KernelsUnavailableError(f"none for {platform.system()}")
    import jax
    from jaxlib.version import __version__ as jaxlib_version

    sources = {name: (files("charloom.kernels") / "cpp" / name).read_bytes() for name in _SOURCES}
    command = [*compile_command(), *_SHARED]
    executable = Path(command[0])
    key = hashlib.sha256()
    for part in (
        *sources.values(),
        *command,
        executable.stat().st_mtime_ns,
        executable.stat().st_size,
        jaxlib_version,
        _processor(),
    ):
        key.update(part if isinstance(part, bytes) else str(part).encode())
        key.update(b"\0")
    folder = _folder()
    path = folder / f"kernels-{key.hexdigest()[:16]}.so"
    if not _is_whole(path):
        _compile([*command, "-isystem", jax.ffi.include_dir()], sources, path)
    return path


def compile_command() -> list[str]:
    """Returns the compiler's full path, what `CXX` says after its name, and the options of code for this processor.

    Raises:
        KernelsUnavailableError: there is none.
    """
    return [*_compiler(), *_FLAGS, _architecture_flag()]


def _compiler() -> list[str]:
    chosen = shlex.split(os.environ.get("CXX", ""))
    for name, *options in [chosen] if chosen else [[name] for name in _NAMES]:
        if found := shutil.which(name):
            return [found, *options]  # not where a link leads: ccache is told by the name what it stands for
    raise KernelsUnavailableError(f"no C++ compiler: {', '.join(chosen[:1] or _NAMES)} not found")


def _architecture_flag() -> str:
    return "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"


def _processor() -> str:
    """Returns what tells this processor's instructions from another's: the cache may be on a shared disk."""
    wanted = ("model name", "flags", "Features", "CPU part")
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        return "\n".join(line for line in lines if line.startswith(wanted))
    except OSError:
        return f"{platform.machine()} {platform.processor()}"


def _folder() -> Path:
    from platformdirs import user_cache_path

    folder = user_cache_path("charloom") / "kernels"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise KernelsUnavailableError(f"cannot make {folder}: {error.strerror or error}") from error
    if not _is_safe(folder, stat.S_ISDIR):
        raise KernelsUnavailableError(f"{folder} is not this user's alone. Remove it")
    return folder


def _is_whole(path: Path) -> bool:
    """Returns whether the library is there, and as it was compiled: loading half of one would end the process."""
    if not _is_safe(path, stat.S_ISREG):
        return False
    try:
        return path.with_suffix(".sha256").read_text() == hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, ValueError):
        return False


def _is_safe(path: Path, is_kind: Callable[[int], bool]) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    return is_kind(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _compile(command: Sequence[str], sources: dict[str, bytes], path: Path) -> None:
    """Compiles into a folder beside `path`, and moves the library there whole."""
    from filelock import FileLock

    try:
        with FileLock(path.with_suffix(".lock")):
            if _is_whole(path):  # another process was at it
                return
            logger.warning("compiling charloom's kernels for this processor, once; some seconds")
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                for name, source in sources.items():
                    (Path(folder) / name).write_bytes(source)
                made = Path(folder) / "kernels.so"
                done = subprocess.run(
                    [*command, str(Path(folder) / "handlers.cc"), "-o", str(made)],
                    capture_output=True,
                    text=True,
                    errors="replace",
                    timeout=_SECONDS,
                )
                if done.returncode:
                    said = next((line for line in done.stderr.splitlines() if "error" in line), "no reason given")
                    raise KernelsUnavailableError(f"{command[0]} failed: {said[:200]}")
                made.chmod(0o700)
                digest = Path(folder) / "digest"
                digest.write_text(hashlib.sha256(made.read_bytes()).hexdigest())
                made.replace(path)
                digest.replace(path.with_suffix(".sha256"))
    except subprocess.TimeoutExpired:
        raise KernelsUnavailableError(f"{command[0]} took more than {_SECONDS} s") from None
    except OSError as error:
        raise KernelsUnavailableError(f"cannot write {path}: {error.strerror or error}") from error
