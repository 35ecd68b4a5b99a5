"""Log lines on standard error. The server runs even if nothing reads them, and quoted text cannot forge a line."""

import contextlib
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from charloom.printable import one_line

_MAX_WAITING = 1 << 20
"""Maximum size of waiting log lines in bytes. Beyond it, lines are dropped."""
_FLUSH_SECONDS = 0.5
_MAX_TRACEBACK = 16_384


class QueuedHandler(logging.Handler):
    """Writes log lines in a separate thread. Logging never blocks, and lines never delay the end of the process.

    Lines are dropped if the queue is full. Their number is logged as soon as there is room again.

    Args:
        write: writes some bytes, however long it takes, and raises OSError if it cannot; standard error by default.
        max_bytes: size of the queue.
    """

    def __init__(self, write: Callable[[bytes], None] | None = None, max_bytes: int = _MAX_WAITING) -> None:
        super().__init__()
        self._write = write or _write_to_stderr
        self._max_bytes = max_bytes
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._dropped = 0
        self._is_writing = False
        self._changed = threading.Condition()
        # The thread is a daemon, because it may be in a write that never returns.
        threading.Thread(target=self._run, name="charloom log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            data = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
        except Exception:
            self.handleError(record)
            return
        with self._changed:
            if self._size + len(data) > self._max_bytes:
                self._dropped += 1
                return
            if self._dropped:
                self._add(self._dropped_line())
            self._add(data)
            self._changed.notify_all()

    def flush(self) -> None:
        """Waits until all lines are written, for at most half a second."""
        with self._changed:
            self._changed.wait_for(lambda: not self._lines and not self._is_writing, _FLUSH_SECONDS)

    def _add(self, data: bytes) -> None:
        self._lines.append(data)
        self._size += len(data)

    def _dropped_line(self) -> bytes:
        """Returns the line that says how many lines were dropped."""
        count, self._dropped = self._dropped, 0
        message = f"{count:,} log lines were dropped, because nothing read them"
        record = logging.LogRecord("charloom.server", logging.WARNING, "", 0, message, None, None)
        return self.format(record).encode() + b"\n"

    def _run(self) -> None:
        while True:
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._lines or self._dropped)
                if self._lines:
                    data = self._lines.popleft()
                    self._size -= len(data)
                else:
                    data = self._dropped_line()
                self._is_writing = True
            try:
                self._write(data)
            except OSError:  # the reader is gone
                with self._changed:
                    self._lines.clear()
                    self._size = self._dropped = 0


def _write_to_stderr(data: bytes) -> None:
    """Writes to standard error without Python's buffer, whose lock an exiting interpreter would wait for."""
    stream = sys.stderr
    try:
        number = stream.fileno()
    except (AttributeError, OSError, ValueError):  # it is not a file of the system
        with contextlib.suppress(AttributeError, ValueError):
            stream.write(data.decode())
        return
    while data:
        try:
            data = data[os.write(number, data) :]
        except BlockingIOError:
            time.sleep(0.05)


class OneLineFormatter(logging.Formatter):
    """Formats a record as one line, whatever it quotes. Only a traceback of the server has more lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        return one_line(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 (logging's name)
        text = super().formatException(ei)[-_MAX_TRACEBACK:]
        return "\n".join(one_line(line) for line in text.split("\n"))
