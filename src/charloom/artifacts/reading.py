"""Files read whole, if they are files: a pipe would wait for a writer, and a device may never end."""

import os
import stat
from pathlib import Path


def read_regular_file(path: Path, most: int | None = None) -> bytes:
    """Returns the content of a regular file.

    Raises:
        OSError: it cannot be read, is something else, or has more than `most` bytes.
    """
    with open(path, "rb", opener=open_without_waiting) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError("it is not a regular file")
        if most is not None and found.st_size > most:
            raise OSError(f"its {found.st_size:,} bytes are more than the {most:,} it may have")
        return file.read()


def open_without_waiting(path: str, flags: int) -> int:
    """Opens a file as `open` asks an opener to; a pipe without a writer or a reader does not make it wait."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)
