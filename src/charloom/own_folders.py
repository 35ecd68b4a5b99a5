"""Folders of the user's cache that programs are run from: nobody else may have written there.

What others could have put there is never run: the folder and its files must be this user's own, be no links, and be
closed to the writing of others.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path


class NotOwnError(Exception):
    """A folder of programs cannot be had, or is not this user's alone; the message says which and why."""


def own_folder(name: str) -> Path:
    """Returns the folder `name` of charloom's cache, made where it is not there yet.

    Raises:
        NotOwnError: it cannot be made, or others could have written there.
    """
    from platformdirs import user_cache_path

    folder = user_cache_path("charloom") / name
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise NotOwnError(f"cannot make {folder}: {error.strerror or error}") from error
    if not _is_own(folder, stat.S_ISDIR):
        raise NotOwnError(f"{folder} is not this user's alone. Remove it")
    return folder


def refuse_what_is_not_own(folder: Path) -> None:
    """Checks everything in `folder`; on a GPU, XLA keeps folders there.

    Raises:
        NotOwnError: something is not this user's alone, or is neither a file nor a folder.
    """
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if _is_own(entry, stat.S_ISDIR):
                    refuse_what_is_not_own(folder / entry.name)
                elif not is_own_file(entry):
                    raise NotOwnError(f"{folder / entry.name} is not a file of this user's alone. Remove it")
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
    if not hasattr(os, "getuid"):  # Windows, whose profiles are closed to others
        return is_kind(found.st_mode)
    return is_kind(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
