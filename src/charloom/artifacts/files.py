"""Atomic writes: at every moment the target is either the complete old file or the complete new one."""

import errno
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from charloom.errors import InUseError, OutputError

LOCK_FILE = ".charloom.lock"
"""Name of the lock file that a process holds while it uses a folder."""
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def write_bytes(path: Path, data: bytes, owner: str = "file") -> None:
    """Writes `data` to the file `path` atomically, and replaces any file there. `Output` decides what may be replaced.

    Raises:
        OutputError: the file cannot be written. An earlier file at `path` is unchanged.
    """
    with atomic_write(path, owner) as file:
        file.write(data)


@contextmanager
def atomic_write(
    path: Path, owner: str = "file", before_replacing: Callable[[], None] = lambda: None
) -> Iterator[IO[bytes]]:
    """Yields a temporary file next to `path`. When the block succeeds, the file is flushed and renamed to `path`.

    Args:
        path: the file to write. A symbolic link stays a link, and its target is replaced. Permissions are kept; a new
            file gets the permissions that the umask allows.
        owner: a short name for the writer. `remove_unfinished` finds temporary files by it.
        before_replacing: called when everything is written, just before the rename.

    Raises:
        OutputError: the file cannot be written. An earlier file at `path` is unchanged.
    """
    temporary = None
    path = Path(os.path.realpath(path))
    try:
        mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else None
        descriptor, temporary = _temporary_file(path.parent, owner)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            os.chmod(temporary, mode)
        before_replacing()
        os.replace(temporary, path)
        temporary = None
        _flush_folder(path.parent)
    except OSError as error:
        raise OutputError(cannot_write(path, error)) from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)


def require_writable_folder(path: Path) -> None:
    """Checks that a file can be created next to `path`, so that a long run fails early.

    Raises:
        OSError: no file can be created there.
    """
    descriptor, temporary = _temporary_file(Path(os.path.realpath(path)).parent, "file")
    os.close(descriptor)
    os.unlink(temporary)


def _temporary_file(folder: Path, owner: str) -> tuple[int, Path]:
    # The operating system applies the umask. A process can only read its umask by setting it for a moment.
    path = folder / f".charloom-{owner}-{secrets.token_hex(16)}.tmp"
    return os.open(path, _CREATE, 0o666), path


def is_unfinished(name: str, owner: str) -> bool:
    """Returns whether `name` is the name of a temporary file of `owner`."""
    return re.fullmatch(rf"\.charloom-{owner}-[0-9a-f]{{32}}\.tmp", name) is not None


def remove_unfinished(folder: Path, owner: str) -> None:
    """Removes temporary files that killed processes of `owner` left in `folder`. The caller must hold its lock."""
    for path in folder.iterdir():
        if is_unfinished(path.name, owner):
            with suppress(OSError):
                path.unlink()


def make_folder(path: Path) -> None:
    """Creates the folder `path` and its parents if they do not exist.

    Raises:
        OutputError: the folder cannot be created, or `path` is not a folder.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise OutputError(f"cannot write into {path}: it is not a folder. Give another name.") from None
    except OSError as error:
        raise OutputError(cannot_write(path, error)) from error


@contextmanager
def lock_folder(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Locks `folder` against other charloom processes while the block runs.

    Args:
        folder: an existing folder.
        wait: whether to wait until another process releases the lock.

    Raises:
        InUseError: another process holds the lock, and `wait` is False.
        OutputError: the folder is not writable, or a file that is not a lock has the lock file's name.
    """
    from filelock import FileLock, Timeout

    path = folder / LOCK_FILE
    with suppress(OSError):
        found = path.lstat()
        if found.st_size or not stat.S_ISREG(found.st_mode):  # locking would empty this file
            raise OutputError(f"{path} is not a lock file of charloom. Move it, or give another folder.")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        raise InUseError(f"another charloom process is using {folder}. Wait for it, or give another folder.") from None
    except OSError as error:
        raise OutputError(cannot_write(folder, error)) from error
    try:
        yield
    finally:
        lock.release()


def cannot_write(path: Path, error: OSError) -> str:
    """Returns the error message for a file that cannot be written."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        parent = Path(os.path.realpath(path)).parent if path.is_symlink() else path.parent
        return f"cannot write {path}: {parent} is not a folder. Create it first, or give another path."
    if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        return f"cannot write {path}: {error.strerror}. Free some space, or give another path."
    return f"cannot write {path}: {error.strerror or error}. Give another path."


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":
        return  # Windows cannot open folders, and a rename there needs no flush
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # the folder is writable but not readable
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
