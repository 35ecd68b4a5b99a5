"""Reading complete regular files. Pipes and devices are refused, because reading them may never end."""

import os
import stat
from pathlib import Path


def read_regular_file(path: Path, max_bytes: int | None = None) -> bytes:
    """Returns the content of a regular file.

    Raises:
        OSError: the file cannot be read, is not a regular file, or has more than `max_bytes` bytes.
    """
    with open(path, "rb", opener=open_without_waiting) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError("it is not a regular file")
        if max_bytes is not None and found.st_size > max_bytes:
            raise OSError(f"it has {found.st_size:,} bytes, more than the maximum of {max_bytes:,}")
        return file.read()


def open_without_waiting(path: str, flags: int) -> int:
    """Returns a file descriptor, as an opener for `open`. A pipe with only one end open does not block it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)
