"""This machine: the cores that this process may use; and what charloom sets in a process that is its own.

A library changes nothing of the program that imports it. The command line's process is charloom's own, and says so
before JAX is loaded, which reads the number of threads and the level of its chatter then.
"""

import logging
import math
import os
import platform
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from charloom.own_folders import NotOwnError, own_folder, refuse_what_is_not_own
from charloom.settings import require_count

logger = logging.getLogger("charloom")

_CGROUP = Path("/sys/fs/cgroup")
_CGROUP_QUOTA = _CGROUP / "cpu.max"
_MEMORY_INFO = Path("/proc/meminfo")
_GROUPS = Path("/proc/self/cgroup")
# What XLA's CPU client takes for the size of its thread pool.
_XLA_POOL = "NPROC"
# With one thread XLA sums matrix products in another order than with several, and every result would depend on it.
# So one core has a pool of two; see docs/design/threads.md.
_SMALLEST_POOL = 2


def available_cores() -> int:
    """Returns how many cores this process may use: the machine's, less what affinity or a cgroup's quota takes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _CGROUP_QUOTA.read_text().split()
        if quota != "max":
            cores = min(cores, max(1, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        pass  # no cgroup, or one without a quota
    return cores


def use_threads(count: int | None) -> int:
    """Makes computations of this process use `count` threads, and returns how many it will be.

    At most and by default as many as the available cores. Fewer leave the other cores alone, where the system
    can be told so. Takes effect only before the first computation.
    """
    if count is not None:
        count = require_count("threads", count)
    count = min(count or available_cores(), available_cores())
    os.environ[_XLA_POOL] = str(max(count, _SMALLEST_POOL))
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        first = os.getpid() % len(cores)  # so that processes of one thread do not all meet on the first core
        os.sched_setaffinity(0, (cores[first:] + cores[:first])[:count])
    return count


@contextmanager
def few_threads(count: int | None) -> Iterator[int]:
    """Makes computations use `count` threads, as `use_threads`, and what else this process does all of its cores.

    What computes is to be loaded meanwhile.
    """
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    try:
        yield use_threads(count)
    finally:
        if cores is not None:
            os.sched_setaffinity(0, cores)


def processor_name() -> str:
    """Returns the processor's name as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def available_memory_bytes() -> int | None:
    """Returns how much more memory this process may have; None where the system does not tell.

    The least of what the machine has free, file caches included, and of what its control groups leave.
    """
    try:
        lines = _MEMORY_INFO.read_text().splitlines()
        figures = dict(line.split(":", 1) for line in lines if ":" in line)
        available = 1024 * int(figures["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError, IndexError):
        return None
    return max(0, min([available, *_left_by_groups()]))


def _left_by_groups() -> Iterator[int]:
    """Yields what is left of each memory limit of a control group that this process is in, and of those around it."""
    try:
        memberships = [line.split(":", 2) for line in _GROUPS.read_text().splitlines()]
    except OSError:
        return
    for _, controllers, name in (one for one in memberships if len(one) == 3):
        if controllers == "":  # version 2
            root, limit, usage, caches = _CGROUP, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            root, limit, usage = _CGROUP / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            caches = "total_inactive_file"
        else:
            continue
        group = root / name.lstrip("/")
        # In a container the name may be that of outside: then its own group is the root.
        for folder in dict.fromkeys((group, *group.parents, root)):
            if not folder.is_relative_to(root):
                continue
            try:
                most, used = int((folder / limit).read_text()), int((folder / usage).read_text())
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                yield most - used + int(stat.get(caches, 0))
            except (OSError, ValueError):  # no limit, or none that can be read
                continue


def peak_memory_bytes() -> int | None:
    """Returns the most memory that this process has held at a time; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


_owns_process = False


def own_process() -> None:
    """Tells charloom that this process is its own, to be set up when JAX is loaded. The user's settings come first.

    For programs: the command line, benchmarks and tests. JAX is then quiet, keeps what it compiles for the next
    process, and uses the cores that there are.
    """
    global _owns_process
    _owns_process = True
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def set_up_jax() -> None:
    """Loads JAX; in a process of charloom's own it is set up. Elsewhere nothing is changed."""
    if _owns_process:
        os.environ.setdefault(_XLA_POOL, str(max(available_cores(), _SMALLEST_POOL)))
    import jax

    if not _owns_process:
        return
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.ERROR)
    logging.getLogger("jax._src.compiler").setLevel(logging.ERROR)
    # A cache that cannot be used costs time, and is no user's business.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache")
    config: Any = jax.config  # untyped
    if config.jax_compilation_cache_dir is None and config.jax_enable_compilation_cache:
        try:
            folder = _programs_folder()
        except NotOwnError as problem:
            logger.warning("compiled programs are not kept: %s", problem)
            return
        config.update("jax_compilation_cache_dir", str(folder))
        config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _programs_folder() -> Path:
    """Returns the folder of programs that JAX compiled, which it reads and runs whatever they are.

    Raises:
        NotOwnError: others could have written there, or something there is neither a file nor a folder.
    """
    folder = own_folder("jax")
    refuse_what_is_not_own(folder)
    return folder


def jax_facts() -> dict[str, str]:
    """Returns JAX's version and the device that it computes on; loads JAX."""
    set_up_jax()
    import jax

    return {"jax": jax.__version__, "device": str(jax.devices()[0])}
