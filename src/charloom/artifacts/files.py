"""Files written in one step: at every moment the target is the old file or the new one, whole."""

import errno
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from charloom.errors import InUseError, OutputError

# Asked for by setting it, and therefore once, before there are threads.
_UMASK = os.umask(0)
os.umask(_UMASK)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes `data` as the file `path`, in one step.

    Raises:
        OutputError: the file cannot be written; what stood at `path` is as it was.
    """
    with replacing(path) as file:
        file.write(data)


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Gives a temporary file beside `path`, which is flushed to disk and takes its place when the block ends well.

    Raises:
        OutputError: the file cannot be written; what stood at `path` is as it was.
    """
    temporary = None
    path = Path(os.path.realpath(path))  # a link stays one
    try:
        mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o666 & ~_UMASK
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)  # mkstemp's 0600 is for secrets
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except OSError as error:
        raise OutputError(cannot_write(path, error)) from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def require_replaceable(path: Path, kind: str, example: str, is_one: Callable[[Path], bool]) -> None:
    """Makes sure that a file of a `kind` can be written at `path`, in the place of nothing or of another such.

    Raises:
        OutputError: the folder is missing or not writable, or what stands there is something else.
    """
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder. Give a file, such as {path / example}.")
    try:
        if path.exists() and not (path.is_file() and is_one(path)):
            raise OutputError(f"{path} is no {kind}, and would be written over. Give another name.")
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(descriptor)
        os.unlink(temporary)
    except OSError as error:
        raise OutputError(cannot_write(path, error)) from error


def require_writable_page(path: Path) -> None:
    """Makes sure that an HTML page can be written at `path`.

    Raises:
        OutputError: the folder is missing or not writable, or what stands there is no page.
    """
    require_replaceable(path, "HTML page", "page.html", _looks_like_page)


def _looks_like_page(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(14).lower() in (b"", b"<!doctype html")


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
        wait: whether another one is waited for.

    Raises:
        InUseError: one is at work there, and is not waited for.
        OutputError: the folder cannot be written to.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        raise InUseError(f"another charloom is at work in {folder}. Wait for it, or give another folder.") from None
    except OSError as error:
        raise OutputError(cannot_write(folder, error)) from error
    try:
        yield
    finally:
        lock.release()


def cannot_write(path: Path, error: OSError) -> str:
    """Returns what to say of a file that cannot be written."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return f"cannot write {path}: {path.parent} is no folder. Make it first, or give another place."
    if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        return f"cannot write {path}: {error.strerror}. Free some space, or give another place."
    return f"cannot write {path}: {error.strerror or error}. Give another place."


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":
        return  # folders cannot be opened there, and a rename needs no flush
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
