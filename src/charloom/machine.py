"""This machine: its cores and memory, and the settings of a process that belongs to charloom.

A library must not change the program that imports it. The command line's process belongs to charloom, and says so with
`own_process` before JAX is loaded, because JAX then reads the number of threads and the log level.
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
# The environment variable from which XLA's CPU client takes the size of its thread pool.
_XLA_POOL = "NPROC"
# With one thread XLA sums matrix products in another order than with several, so results would depend on the threads.
# A single core therefore gets a pool of two; see docs/design/threads.md.
_MIN_POOL_SIZE = 2


def available_cores() -> int:
    """Returns how many cores this process may use: the machine's, limited by affinity and the cgroup's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _CGROUP_QUOTA.read_text().split()
        if quota != "max":
            cores = min(cores, max(1, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        pass  # there is no cgroup, or it has no quota
    return cores


def use_threads(count: int | None) -> int:
    """Makes computations of this process use `count` threads, and returns the number that they will use.

    The default and the maximum are the available cores. With fewer threads the other cores stay free, if the system
    supports affinity. This takes effect only before the first computation.
    """
    if count is not None:
        count = require_count("threads", count)
    count = min(count or available_cores(), available_cores())
    os.environ[_XLA_POOL] = str(max(count, _MIN_POOL_SIZE))
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        first = os.getpid() % len(cores)  # so that single-threaded processes do not all share the first core
        os.sched_setaffinity(0, (cores[first:] + cores[:first])[:count])
    return count


@contextmanager
def limited_threads(count: int | None) -> Iterator[int]:
    """Limits computations to `count` threads, like `use_threads`; the rest of this process may use all its cores.

    Load the code that computes inside this context.
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
    """Returns how much more memory this process may use; None if the system does not say.

    It is the minimum of the machine's free memory, including file caches, and of what its control groups allow.
    """
    try:
        lines = _MEMORY_INFO.read_text().splitlines()
        figures = dict(line.split(":", 1) for line in lines if ":" in line)
        available = 1024 * int(figures["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError, IndexError):
        return None
    return max(0, min([available, *_memory_left_by_groups()]))


def _memory_left_by_groups() -> Iterator[int]:
    """Yields how much memory is left under each limit of this process's control groups and their parents."""
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
        # In a container the name may be the one outside of it; then the process's group is the root.
        for folder in dict.fromkeys((group, *group.parents, root)):
            if not folder.is_relative_to(root):
                continue
            try:
                allowed, used = int((folder / limit).read_text()), int((folder / usage).read_text())
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                yield allowed - used + int(stat.get(caches, 0))
            except (OSError, ValueError):  # there is no limit, or it cannot be read
                continue


def peak_memory_bytes() -> int | None:
    """Returns the peak memory of this process; None if the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


_owns_process = False


def own_process() -> None:
    """Declares that this process belongs to charloom, which then configures JAX when it loads it.

    Programs call this: the command line, benchmarks and tests. JAX then logs less, caches compiled programs for later
    processes, and uses all available cores. The user's own settings take precedence.
    """
    global _owns_process
    _owns_process = True
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def set_up_jax() -> None:
    """Loads JAX, and configures it in a process that belongs to charloom. Elsewhere it changes nothing."""
    if _owns_process:
        os.environ.setdefault(_XLA_POOL, str(max(available_cores(), _MIN_POOL_SIZE)))
    import jax

    if not _owns_process:
        return
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.ERROR)
    logging.getLogger("jax._src.compiler").setLevel(logging.ERROR)
    # An unusable cache only costs time, so the user need not know.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache")
    config: Any = jax.config  # untyped
    if config.jax_compilation_cache_dir is None and config.jax_enable_compilation_cache:
        try:
            folder = _compilation_cache()
        except NotOwnError as problem:
            logger.warning("charloom does not cache compiled programs: %s", problem)
            return
        config.update("jax_compilation_cache_dir", str(folder))
        config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _compilation_cache() -> Path:
    """Returns JAX's compilation cache. JAX runs the programs in it without checking them.

    Raises:
        NotOwnError: other users could have written there, or something there is neither a file nor a folder.
    """
    folder = own_folder("jax")
    refuse_what_is_not_own(folder)
    return folder


def jax_info() -> dict[str, str]:
    """Returns JAX's version and its device. Loads JAX."""
    set_up_jax()
    import jax

    return {"jax": jax.__version__, "device": str(jax.devices()[0])}
