"""Ctrl-C, SIGTERM and SIGHUP, obeyed whatever the main thread is doing.

Python calls a signal handler between two bytecodes of the main thread. So it does not call the handler while XLA
compiles or computes there. What the handler raises may also be swallowed, for example by a garbage-collection callback.
Here a thread reads the signal numbers from a pipe, which the system fills at once. The thread asks the work in progress
to stop, or ends the process.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType

from charloom.units import LONG_WAIT_SECONDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_CLOSING_SECONDS = 1.0
"""How long the last output may take when a signal ends the command. Its reader may have stopped reading."""


class Interrupt:
    """A context in which the first signal asks the work to stop cleanly; a second Ctrl-C ends the command at once.

    While it is not armed, and outside of the `with` block, the first signal ends the command at once.

    Attributes:
        armed: whether there is work worth stopping cleanly.
        signal_number: the signal that arrived; 0 if none did.

    Args:
        print_line: prints a line.
        closing_action: says what the command does after the signal.
        seconds_left: returns how long that will take; None while that is not known.
    """

    def __init__(
        self,
        print_line: Callable[[str], None],
        closing_action: str,
        seconds_left: Callable[[], float | None] = lambda: None,
    ):
        self.armed = False
        self.signal_number = 0
        self._announcement: threading.Thread | None = None
        self._print_line = print_line
        self._closing_action = closing_action
        self._seconds_left = seconds_left

    @property
    def status(self) -> int:
        """The exit status that reports the signal: 130 for Ctrl-C."""
        return 128 + self.signal_number

    def __enter__(self) -> "Interrupt":
        _watcher.interrupt = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _watcher.interrupt = None
        if self._announcement is not None:  # if the work ends soon, the process would exit before the line is printed
            self._announcement.join(_CLOSING_SECONDS)

    def request_stop(self, number: int) -> None:
        """Takes the first signal. Prints what happens in another thread, because printing may block."""
        announcement = threading.Thread(target=self.announce, daemon=True)
        announcement.start()  # first: the work may end as soon as it sees the signal, and then waits for the line
        self._announcement = announcement
        self.signal_number = number

    def announce(self) -> None:
        """Prints what happens now, and how long it takes if that is long."""
        seconds = self._seconds_left()
        time = "" if seconds is None or seconds < LONG_WAIT_SECONDS else f", which takes about {seconds:,.0f} s"
        self._print_line(f"stopping: {self._closing_action}{time} (press Ctrl-C again to quit at once)")


@contextmanager
def before_exit(action: Callable[[], None]) -> Iterator[None]:
    """Calls `action`, in another thread, if a signal ends the command within this block."""
    _watcher.actions.append(action)
    try:
        yield
    finally:
        _watcher.actions.remove(action)


def watch_signals() -> None:
    """Handles the signals that ask the process to end, until it ends. Signals that are ignored stay ignored.

    Ctrl-C is the exception, because a shell script ignores it for commands in the background.
    Call this once, in the main thread, before importing modules that take time.
    """
    _watcher.start()


def exit_now(status: int) -> "NoReturn":
    """Ends the process without Python's own shutdown, which waits for threads and complains about a signal."""
    from charloom.cli.streams import flush_results  # here: signals are watched before it is imported

    # Flushes a server's last log lines. The main thread may be in the middle of importing the module.
    getattr(sys.modules.get("logging"), "shutdown", lambda: None)()
    with suppress(OSError, ValueError):
        flush_results()
    os._exit(status)


class _SignalWatcher:
    """The thread that receives the signals.

    Attributes:
        interrupt: what to ask to stop; None if a signal should end the process.
        actions: what to call before the process ends.
    """

    def __init__(self) -> None:
        self.interrupt: Interrupt | None = None
        self.actions: list[Callable[[], None]] = []
        self._is_exiting = False
        self._read_end = self._write_end = -1

    def start(self) -> None:
        self._read_end, self._write_end = os.pipe()
        if os.name != "nt":
            os.set_blocking(self._write_end, False)
        signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        for number in _SIGNALS:
            if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._handle)
        threading.Thread(target=self._follow, name="signals", daemon=True).start()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # The number is in the pipe, unless an event loop has replaced the wakeup descriptor by its own.
        other = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        if other != self._write_end:
            signal.set_wakeup_fd(other, warn_on_full_buffer=False)
            os.write(self._write_end, bytes([number]))

    def _follow(self) -> None:
        while numbers := os.read(self._read_end, 64):
            for number in numbers:
                if number in _SIGNALS:
                    self._take(number)

    def _take(self, number: int) -> None:
        interrupt = self.interrupt
        if interrupt is not None and interrupt.armed and not interrupt.signal_number:
            interrupt.request_stop(number)
        # A closed terminal may send its signal twice, so only Ctrl-C counts as a second request.
        elif interrupt is None or not interrupt.signal_number or number == signal.SIGINT:
            self._exit(128 + number)

    def _exit(self, status: int) -> None:
        if self._is_exiting:
            os._exit(status)
        self._is_exiting = True
        threading.Thread(target=self._close, args=(status,), daemon=True).start()
        limit = threading.Timer(_CLOSING_SECONDS, os._exit, (status,))
        limit.daemon = True
        limit.start()

    def _close(self, status: int) -> None:
        for action in reversed(self.actions):
            with suppress(Exception):
                action()
        exit_now(status)


_watcher = _SignalWatcher()
