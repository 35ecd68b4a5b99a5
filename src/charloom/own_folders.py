"""Cache folders from which charloom runs programs: only this user may write there.

charloom never runs a file that another user could have put there. The folder and its files must belong to this user,
must not be links, and must not be writable by others.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path


class NotOwnError(Exception):
    """A folder cannot be created, or other users can write there; the message says which folder and why."""


def own_folder(name: str) -> Path:
    """Returns the folder `name` of charloom's cache, and creates it if it is missing.

    Raises:
        NotOwnError: it cannot be created, or other users could have written there.
    """
    from platformdirs import user_cache_path

    folder = user_cache_path("charloom") / name
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise NotOwnError(f"cannot create {folder}: {error.strerror or error}") from error
    if not _is_own(folder, stat.S_ISDIR):
        raise NotOwnError(f"{folder}: other users can write there. Remove it")
    return folder


def refuse_what_is_not_own(folder: Path) -> None:
    """Checks everything in `folder`, including subfolders, which XLA creates on a GPU.

    Raises:
        NotOwnError: other users can write to something there, or it is neither a file nor a folder.
    """
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if _is_own(entry, stat.S_ISDIR):
                    refuse_what_is_not_own(folder / entry.name)
                elif not is_own_file(entry):
                    raise NotOwnError(f"{folder / entry.name}: not a file that only this user can write. Remove it")
    except OSError as error:
        raise NotOwnError(f"cannot read {folder}: {error.strerror or error}") from error


def is_own_file(path: Path | os.DirEntry[str]) -> bool:
    """Returns whether `path` is a regular file that only this user could have written."""
    return _is_own(path, stat.S_ISREG)


def _is_own(path: Path | os.DirEntry[str], is_kind: Callable[[int], bool]) -> bool:
    try:
        found = path.stat(follow_symlinks=False)
    except OSError:
        return False
    if not hasattr(os, "getuid"):  # Windows, where other users cannot write to a user's profile
        return is_kind(found.st_mode)
    return is_kind(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
