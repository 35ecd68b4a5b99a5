"""The native kernels' library, compiled from source: once for this processor, and stored in the user's cache."""

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
    *("vectors.h", "threads.h", "product.h", "amx.h", "bfloat16.h", "precision.h", "cells.h", "layer.h", "forward.h"),
    *("kernel_gradient.h", "backward.h", "sequence.h", "checks.h", "dense.h", "sampling.h", "quantized.h"),
    *("activation_choice.h", "generator_call.h", "generator.h"),
)
_UNITS = ("handlers.cc", "sequence_bfloat16.cc", "sequence.cc", "generator.cc", "exact_generator.cc")
"""The sources, which are compiled in parallel, the longest first."""
_UNIT_FLAGS = {"exact_generator.cc": ("-ffp-contract=off",)}
FLAGS = ("-std=c++20", "-O2", "-pthread", "-fPIC")
"""The options of every compiler and processor."""
_COMPILER_NAMES = ("c++", "g++", "clang++")
_TIMEOUT_SECONDS = 300
_BUILD_FOLDER_PREFIX = "compiling-"


class KernelsUnavailableError(Exception):
    """The library cannot be compiled or loaded. The message says why, in a few words."""


def library_path() -> Path:
    """Returns the path of the library for this processor, and compiles it if necessary.

    Raises:
        KernelsUnavailableError: the library cannot be compiled.
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
        _UNIT_FLAGS,
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
    if not _is_complete(path):
        _make([*command, "-isystem", jax.ffi.include_dir()], sources, path)
    return path


def compile_command() -> list[str]:
    """Returns the compiler's full path, the options in `CXX`, and options for this processor.

    Raises:
        KernelsUnavailableError: there is no compiler.
    """
    return [*_compiler(), *FLAGS, _architecture_flag()]


def _compiler() -> list[str]:
    chosen = shlex.split(os.environ.get("CXX", ""))
    for name, *options in [chosen] if chosen else [[name] for name in _COMPILER_NAMES]:
        if found := shutil.which(name):
            return [found, *options]  # links are not resolved, because ccache looks at the name it is called by
    raise KernelsUnavailableError(f"no C++ compiler: {', '.join(chosen[:1] or _COMPILER_NAMES)} not found")


def _architecture_flag() -> str:
    return "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"


def _processor() -> str:
    """Returns what identifies this processor's instruction set, because machines may share the cache."""
    wanted = ("model name", "flags", "Features", "CPU part")
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        return "\n".join(line for line in lines if line.startswith(wanted))
    except OSError:
        return f"{platform.machine()} {platform.processor()}"


def _is_complete(path: Path) -> bool:
    """Returns whether the library exists as it was compiled. Loading a truncated library would crash the process."""
    if not is_own_file(path):
        return False
    try:
        return path.with_suffix(".sha256").read_text() == hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, ValueError):
        return False


def _make(command: Sequence[str], sources: dict[str, bytes], path: Path) -> None:
    """Compiles in a folder next to `path`, and then moves the library to `path`."""
    from filelock import FileLock

    try:
        with FileLock(path.with_suffix(".lock")):
            if _is_complete(path):  # another process compiled it meanwhile
                return
            logger.warning("compiling charloom's kernels for this processor; this happens once and takes some seconds")
            _remove_build_folders(path)
            with _compiling_folder(path) as folder:
                for name, source in sources.items():
                    (folder / name).write_bytes(source)
                library = folder / "kernels.so"
                compile_library(command, command, folder, library)
                library.chmod(0o700)
                digest = folder / "digest"
                digest.write_text(hashlib.sha256(library.read_bytes()).hexdigest())
                library.replace(path)
                digest.replace(path.with_suffix(".sha256"))
    except subprocess.TimeoutExpired:
        raise KernelsUnavailableError(f"{command[0]} took more than {_TIMEOUT_SECONDS} s") from None
    except OSError as error:
        raise KernelsUnavailableError(f"cannot write {path}: {error.strerror or error}") from error


def compile_library(command: Sequence[str], link: Sequence[str], folder: Path, library: Path) -> None:
    """Compiles the sources in `folder`, and links them.

    Args:
        command: the compiler and its options.
        link: the compiler and its options when it links.
        folder: where the sources are, and the objects go.
        library: the file to write.

    Raises:
        KernelsUnavailableError: the compiler fails.
    """
    objects = {unit: str(folder / f"{unit}.o") for unit in _UNITS}
    _run(
        *(
            [*command, *_UNIT_FLAGS.get(unit, ()), "-c", str(folder / unit), "-o", made]
            for unit, made in objects.items()
        )
    )
    _run([*link, "-shared", *objects.values(), "-o", str(library)])


def _run(*commands: Sequence[str]) -> None:
    """Runs all commands in parallel. If one fails or this process is interrupted, all are stopped."""
    running = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace")
        for command in commands
    ]
    try:
        for process in running:
            errors = process.communicate(timeout=_TIMEOUT_SECONDS)[1]
            if process.returncode:
                line = next((line for line in errors.splitlines() if "error" in line), "no reason given")
                raise KernelsUnavailableError(f"{commands[0][0]} failed: {line[:200]}")
    finally:
        for process in running:
            process.kill()
            process.wait()
            if process.stderr is not None:  # the compiler's child processes may still have it open
                process.stderr.close()


@contextmanager
def _compiling_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder to compile `path` in. The caller must hold the lock of `path`."""
    folder = path.with_name(f"{_BUILD_FOLDER_PREFIX}{path.stem}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_build_folders(path: Path) -> None:
    """Removes the folders of processes that were killed while they compiled other libraries."""
    from filelock import FileLock, Timeout

    for folder in path.parent.glob(f"{_BUILD_FOLDER_PREFIX}kernels-*"):
        library = path.with_name(f"{folder.name.removeprefix(_BUILD_FOLDER_PREFIX)}.so")
        if library != path:
            # A process that is still compiling holds the lock.
            with suppress(Timeout, OSError), FileLock(library.with_suffix(".lock"), timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
