"""Files in folders and behind patterns, in order; what is passed over is remembered, and nothing is in silence.

Links to folders are not followed, so that a loop of them ends.
"""

import errno
import glob
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from charloom.errors import SourceError


@dataclass
class PassedOver:
    """What was found and is not read.

    Attributes:
        links: links to folders.
        others: pipes, sockets, devices, and links to nothing.
    """

    links: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def files_in(folder: str, passed_over: PassedOver) -> Iterator[str]:
    """Yields the ordinary files in `folder` and the folders inside of it, without hidden ones.

    Raises:
        SourceError: a folder cannot be read.
    """
    for parent, folders, files in _walk(folder):
        passed_over.links += (path for name in folders if os.path.islink(path := os.path.join(parent, name)))
        for name in files:
            if _is_ordinary(path := os.path.join(parent, name), passed_over):
                yield path


def files_like(pattern: str, passed_over: PassedOver) -> list[str]:
    """Returns the ordinary files that match a glob pattern, sorted; `**` stands for any folders.

    Raises:
        SourceError: a folder cannot be read.
    """
    found = dict.fromkeys(_matches(pattern))
    return [path for path in sorted(found) if not os.path.isdir(path) and _is_ordinary(path, passed_over)]


def unreadable(path: str, error: OSError) -> SourceError:
    """Returns what to say of a file or folder that the system does not let be read."""
    return SourceError(f"cannot read {path}: {error.strerror or error}.")


def _matches(pattern: str) -> Iterator[str]:
    parts = pattern.replace(os.altsep or os.sep, os.sep).split(os.sep)
    if "**" not in parts:
        _require_readable(os.path.dirname(pattern))
        yield from glob.glob(pattern)
        return
    # Not glob's own way, which follows links in circles and passes over folders that it cannot read.
    at = parts.index("**")
    root, rest = os.sep.join(parts[:at]), os.sep.join(parts[at + 1 :]) or "*"
    for folder in filter(
        os.path.isdir, _matches(root) if glob.has_magic(root) else [root or os.sep * min(at, 1) or "."]
    ):
        for parent, _, _ in _walk(folder):
            yield from _matches(os.path.join(glob.escape(parent), rest).removeprefix(os.path.join(".", "")))


def _require_readable(pattern: str) -> None:
    """Makes sure that the folders can be listed and entered that a pattern stands for, and those on the way to them."""
    for folder in filter(os.path.isdir, glob.glob(pattern)):
        if not os.access(folder, os.R_OK | os.X_OK):
            raise unreadable(folder, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    if glob.has_magic(pattern):
        _require_readable(os.path.dirname(pattern))


def _walk(folder: str) -> Iterator[tuple[str, list[str], list[str]]]:
    def refuse(error: OSError) -> None:
        raise unreadable(error.filename or folder, error) from error

    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield parent, folders, sorted(name for name in files if not name.startswith("."))


def _is_ordinary(path: str, passed_over: PassedOver) -> bool:
    try:
        if stat.S_ISREG(os.stat(path).st_mode):
            return True
    except PermissionError as error:  # the folder may be listed, and not entered
        raise unreadable(path, error) from error
    except OSError:
        pass  # a link to nothing, or to itself
    passed_over.others.append(path)
    return False
