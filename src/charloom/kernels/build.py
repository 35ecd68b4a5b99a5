"""The native kernels' library: compiled once for this processor, and kept in the user's cache."""

import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path

from charloom.own_folders import NotOwnError, is_own_file, own_folder

logger = logging.getLogger("charloom")

_HEADERS = (
    *("vectors.h", "threads.h", "product.h", "cells.h", "layer.h", "forward.h", "backward.h", "sequence.h"),
    *("checks.h", "dense.h", "sampling.h", "generator.h"),
)
_UNITS = ("handlers.cc", "sequence.cc", "generator.cc")
"""These are compiled at the same time, the longest first."""
_FLAGS = ("-std=c++20", "-O2", "-pthread", "-fPIC")
_NAMES = ("c++", "g++", "clang++")
_SECONDS = 300
_COMPILING = "compiling-"


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

    sources = {name: (files("charloom.kernels") / "cpp" / name).read_bytes() for name in (*_HEADERS, *_UNITS)}
    command = compile_command()
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
    try:
        folder = own_folder("kernels")
    except NotOwnError as problem:
        raise KernelsUnavailableError(str(problem)) from problem
    path = folder / f"kernels-{key.hexdigest()[:16]}.so"
    if not _is_whole(path):
        _make([*command, "-isystem", jax.ffi.include_dir()], sources, path)
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


def _is_whole(path: Path) -> bool:
    """Returns whether the library is there, and as it was compiled: loading half of one would end the process."""
    if not is_own_file(path):
        return False
    try:
        return path.with_suffix(".sha256").read_text() == hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, ValueError):
        return False


def _make(command: Sequence[str], sources: dict[str, bytes], path: Path) -> None:
    """Compiles into a folder beside `path`, and moves the library there whole."""
    from filelock import FileLock

    try:
        with FileLock(path.with_suffix(".lock")):
            if _is_whole(path):  # another process was at it
                return
            logger.warning("compiling charloom's kernels for this processor, once; some seconds")
            _remove_left_behind(path)
            with _compiling_folder(path) as folder:
                for name, source in sources.items():
                    (folder / name).write_bytes(source)
                made = folder / "kernels.so"
                units = [str(folder / unit) for unit in _UNITS]
                _run(*([*command, "-c", unit, "-o", f"{unit}.o"] for unit in units))
                _run([*command, "-shared", *(f"{unit}.o" for unit in units), "-o", str(made)])
                made.chmod(0o700)
                digest = folder / "digest"
                digest.write_text(hashlib.sha256(made.read_bytes()).hexdigest())
                made.replace(path)
                digest.replace(path.with_suffix(".sha256"))
    except subprocess.TimeoutExpired:
        raise KernelsUnavailableError(f"{command[0]} took more than {_SECONDS} s") from None
    except OSError as error:
        raise KernelsUnavailableError(f"cannot write {path}: {error.strerror or error}") from error


def _run(*commands: Sequence[str]) -> None:
    """Runs all commands at the same time; none goes on where one fails, or where this process is to end."""
    running = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace")
        for command in commands
    ]
    try:
        for process in running:
            said = process.communicate(timeout=_SECONDS)[1]
            if process.returncode:
                line = next((line for line in said.splitlines() if "error" in line), "no reason given")
                raise KernelsUnavailableError(f"{commands[0][0]} failed: {line[:200]}")
    finally:
        for process in running:
            process.kill()
            process.wait()
            if process.stderr is not None:  # which a compiler's own processes may hold for longer
                process.stderr.close()


@contextmanager
def _compiling_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder to compile `path` in; whoever holds the lock of `path` is the only one there."""
    folder = path.with_name(f"{_COMPILING}{path.stem}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_left_behind(path: Path) -> None:
    """Removes what processes left that were killed while they compiled other libraries: nobody has their locks."""
    from filelock import FileLock, Timeout

    for left in path.parent.glob(f"{_COMPILING}kernels-*"):
        library = path.with_name(f"{left.name.removeprefix(_COMPILING)}.so")
        if library != path:
            with suppress(Timeout, OSError), FileLock(library.with_suffix(".lock"), timeout=0):
                shutil.rmtree(left, ignore_errors=True)
