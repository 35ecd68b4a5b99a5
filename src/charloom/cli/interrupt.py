"""Ctrl-C, SIGTERM and SIGHUP, obeyed whatever the main thread is doing.

Python calls the handler of a signal between two bytecodes of the main thread, so not while XLA compiles or computes
there, and what the handler raises may be swallowed, by a garbage-collection callback for example. Here a thread reads
the numbers of the signals from a pipe, which the system fills at once. It asks the work in progress to stop, or ends
the process.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
WORTH_TELLING_SECONDS = 3.0
"""Who waits for longer is told how long."""
_CLOSING_SECONDS = 1.0
"""What the last output may take when a signal ends the command; its reader may have stopped to read."""


class Interrupt:
    """Work that the first signal asks to stop in good order; a second Ctrl-C ends the command at once.

    While it is not armed, and outside of the `with` block, the first signal ends the command at once.

    Attributes:
        armed: whether there is something to bring to an end.
        came: the signal that came; 0 for none.

    Args:
        say: prints a line.
        what_happens: after the signal, in words.
        seconds_left: returns how long that will take; None while that is not known.
    """

    def __init__(
        self, say: Callable[[str], None], what_happens: str, seconds_left: Callable[[], float | None] = lambda: None
    ):
        self.armed = False
        self.came = 0
        self._telling: threading.Thread | None = None
        self._say = say
        self._what_happens = what_happens
        self._seconds_left = seconds_left

    @property
    def status(self) -> int:
        """The exit status that tells of the signal, 130 for Ctrl-C."""
        return 128 + self.came

    def __enter__(self) -> "Interrupt":
        _watch.work = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _watch.work = None
        if self._telling is not None:  # work that ends soon would otherwise take the line with it
            self._telling.join(_CLOSING_SECONDS)

    def take(self, number: int) -> None:
        """Takes the first signal, and says in another thread what happens: printing may block if nobody reads."""
        telling = threading.Thread(target=self.tell, daemon=True)
        telling.start()  # first: the work may end as soon as the signal is seen, and then waits for the line
        self._telling = telling
        self.came = number

    def tell(self) -> None:
        """Says what happens now, and how long it takes where anyone would wonder."""
        seconds = self._seconds_left()
        time = "" if seconds is None or seconds < WORTH_TELLING_SECONDS else f", which takes about {seconds:,.0f} s"
        self._say(f"stopping: {self._what_happens}{time} (Ctrl-C once more quits at once)")


@contextmanager
def before_ending(action: Callable[[], None]) -> Iterator[None]:
    """Has `action` called, in another thread, when a signal ends the command within this block."""
    _watch.actions.append(action)
    try:
        yield
    finally:
        _watch.actions.remove(action)


def watch_signals() -> None:
    """Takes over the signals that ask the process to end, until it does; signals that are ignored stay so.

    Only Ctrl-C does not, since a shell script ignores it for its commands in the background. To be called once, in
    the main thread, before modules are imported that take time.
    """
    _watch.begin()


def leave(status: int) -> "NoReturn":
    """Ends the process without Python's own end, where threads are waited for, and a signal would be complained of."""
    from charloom.cli.streams import flush_results  # here: signals are watched before it is imported

    # A server's last lines; the main thread may be in the middle of importing the module.
    getattr(sys.modules.get("logging"), "shutdown", lambda: None)()
    with suppress(OSError, ValueError):
        flush_results()
    os._exit(status)


class _Watch:
    """The thread that signals are told to.

    Attributes:
        work: what is asked to stop; None where the process is to end.
        actions: what is done before it ends.
    """

    def __init__(self) -> None:
        self.work: Interrupt | None = None
        self.actions: list[Callable[[], None]] = []
        self._is_ending = False
        self._read = self._write = -1

    def begin(self) -> None:
        self._read, self._write = os.pipe()
        if os.name != "nt":
            os.set_blocking(self._write, False)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in _SIGNALS:
            if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._handle)
        threading.Thread(target=self._follow, name="signals", daemon=True).start()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # The number is in the pipe, unless an event loop has put another descriptor in its place.
        other = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        if other != self._write:
            signal.set_wakeup_fd(other, warn_on_full_buffer=False)
            os.write(self._write, bytes([number]))

    def _follow(self) -> None:
        while numbers := os.read(self._read, 64):
            for number in numbers:
                if number in _SIGNALS:
                    self._take(number)

    def _take(self, number: int) -> None:
        work = self.work
        if work is not None and work.armed and not work.came:
            work.take(number)
        elif work is None or not work.came or number == signal.SIGINT:  # a closed terminal may be told of twice
            self._end(128 + number)

    def _end(self, status: int) -> None:
        if self._is_ending:
            os._exit(status)
        self._is_ending = True
        threading.Thread(target=self._close, args=(status,), daemon=True).start()
        limit = threading.Timer(_CLOSING_SECONDS, os._exit, (status,))
        limit.daemon = True
        limit.start()

    def _close(self, status: int) -> None:
        for action in reversed(self.actions):
            with suppress(Exception):
                action()
        leave(status)


_watch = _Watch()
