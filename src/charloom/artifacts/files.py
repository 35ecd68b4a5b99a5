"""Files written in one step: at every moment the target is the old file or the new one, whole."""

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
"""Is held while a process works in a folder."""
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def write_bytes(path: Path, data: bytes, owner: str = "file") -> None:
    """Writes `data` as the file `path`, in one step, whatever stands there: `Output` decides about that.

    Raises:
        OutputError: the file cannot be written; what stood at `path` is as it was.
    """
    with replacing(path, owner) as file:
        file.write(data)


@contextmanager
def replacing(
    path: Path, owner: str = "file", before_replacing: Callable[[], None] = lambda: None
) -> Iterator[IO[bytes]]:
    """Gives a temporary file beside `path`, which is flushed to disk and takes its place when the block ends well.

    Args:
        path: the file; a link stays one, and what it leads to is replaced. Permissions stay as they were; those of a
            new file are what the umask lets them be.
        owner: who writes, in a word. It stands in the temporary file's name, for `remove_unfinished`.
        before_replacing: is called when all is written, and only the last step is left.

    Raises:
        OutputError: the file cannot be written; what stood at `path` is as it was.
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
    """Makes sure that a file can be made beside `path`, before hours go into what should stand there.

    Raises:
        OSError: it cannot.
    """
    descriptor, temporary = _temporary_file(Path(os.path.realpath(path)).parent, "file")
    os.close(descriptor)
    os.unlink(temporary)


def _temporary_file(folder: Path, owner: str) -> tuple[int, Path]:
    # The kernel itself applies the umask, which nobody can ask for without setting it for a moment.
    path = folder / f".charloom-{owner}-{secrets.token_hex(16)}.tmp"
    return os.open(path, _CREATE, 0o666), path


def is_unfinished(name: str, owner: str) -> bool:
    """Returns whether a file of this name is a temporary one that `owner` wrote, or was killed while it wrote."""
    return re.fullmatch(rf"\.charloom-{owner}-[0-9a-f]{{32}}\.tmp", name) is not None


def remove_unfinished(folder: Path, owner: str) -> None:
    """Removes what a killed `owner` left in `folder`; the caller holds the folder's lock, so that none is at work."""
    for path in folder.iterdir():
        if is_unfinished(path.name, owner):
            with suppress(OSError):
                path.unlink()


def make_folder(path: Path) -> None:
    """Makes the folder `path` and those above it, where they are not there yet.

    Raises:
        OutputError: it cannot be made, or something else stands there.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise OutputError(f"cannot write into {path}: it is no folder. Give another name.") from None
    except OSError as error:
        raise OutputError(cannot_write(path, error)) from error


@contextmanager
def alone_in(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Keeps other processes of charloom's out of `folder` for as long as the block runs.

    Args:
        folder: is there.
        wait: whether to wait for another process.

    Raises:
        InUseError: one is at work there, and is not waited for.
        OutputError: the folder cannot be written to, or somebody's own file has the lock's name.
    """
    from filelock import FileLock, Timeout

    path = folder / LOCK_FILE
    with suppress(OSError):
        found = path.lstat()
        if found.st_size or not stat.S_ISREG(found.st_mode):  # which locking would empty
            raise OutputError(f"{path} is not the lock that charloom makes. Move it, or give another folder.")
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
    """Returns what to say of a file that cannot be written."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        parent = Path(os.path.realpath(path)).parent if path.is_symlink() else path.parent
        return f"cannot write {path}: {parent} is no folder. Make it first, or give another place."
    if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        return f"cannot write {path}: {error.strerror}. Free some space, or give another place."
    return f"cannot write {path}: {error.strerror or error}. Give another place."


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":
        return  # folders cannot be opened there, and a rename needs no flush
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a folder that may be written to and not read
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
