"""Files in folders and files that match patterns, in order. Skipped files are recorded for a notice.

Links to folders are not followed, because they may form a loop.
"""

import errno
import glob
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from charloom.errors import SourceError


@dataclass
class SkippedFiles:
    """Paths that were found but are not read.

    Attributes:
        links: links to folders.
        others: pipes, sockets, devices and broken links.
    """

    links: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def files_in(folder: str, skipped: SkippedFiles) -> Iterator[str]:
    """Yields the regular files in `folder` and its subfolders, except hidden ones.

    Raises:
        SourceError: a folder cannot be read.
    """
    for parent, folders, files in _walk(folder):
        skipped.links += (path for name in folders if os.path.islink(path := os.path.join(parent, name)))
        for name in files:
            if _is_ordinary(path := os.path.join(parent, name), skipped):
                yield path


def files_like(pattern: str, skipped: SkippedFiles) -> list[str]:
    """Returns the regular files that match a glob pattern, sorted; `**` matches any number of folders.

    Raises:
        SourceError: a folder cannot be read.
    """
    found = dict.fromkeys(_matches(pattern))
    return [path for path in sorted(found) if not os.path.isdir(path) and _is_ordinary(path, skipped)]


def unreadable(path: str, error: OSError) -> SourceError:
    """Returns the error for a file or folder that cannot be read."""
    return SourceError(f"cannot read {path}: {error.strerror or error}.")


def _matches(pattern: str) -> Iterator[str]:
    parts = pattern.replace(os.altsep or os.sep, os.sep).split(os.sep)
    if "**" not in parts:
        _require_readable(os.path.dirname(pattern))
        yield from glob.glob(pattern)
        return
    # `glob` itself would follow links in circles, and skip unreadable folders without an error.
    at = parts.index("**")
    root, rest = os.sep.join(parts[:at]), os.sep.join(parts[at + 1 :]) or "*"
    for folder in filter(
        os.path.isdir, _matches(root) if glob.has_magic(root) else [root or os.sep * min(at, 1) or "."]
    ):
        for parent, _, _ in _walk(folder):
            yield from _matches(os.path.join(glob.escape(parent), rest).removeprefix(os.path.join(".", "")))


def _require_readable(pattern: str) -> None:
    """Checks that the folders that match a pattern, and their parents, can be listed and entered."""
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


def _is_ordinary(path: str, skipped: SkippedFiles) -> bool:
    try:
        if stat.S_ISREG(os.stat(path).st_mode):
            return True
    except PermissionError as error:  # the folder can be listed but not entered
        raise unreadable(path, error) from error
    except OSError:
        pass  # a broken link, or a link to itself
    skipped.others.append(path)
    return False
