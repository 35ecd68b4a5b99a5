"""Ctrl-C, and other signals to end, as a wish: long work ends in good order, and a second Ctrl-C ends it at once."""

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

# All but the first stay ignored where they are ignored, as under `nohup`.
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Interrupt:
    """Turns the first Ctrl-C (or SIGTERM or SIGHUP) into a wish to stop; a second Ctrl-C ends the command.

    So does any before there is something to bring to an end, and after.

    Attributes:
        armed: whether there is something to bring to an end.
        came: the signal that came; 0 for none.
    """

    def __init__(self, say: Callable[[str], None], what_happens: str):
        self.armed = False
        self.came = 0
        self._say = say
        self._what_happens = what_happens
        self._before: dict[int, Any] = {}

    @property
    def status(self) -> int:
        """The exit status that tells of the signal, 130 for Ctrl-C."""
        return 128 + self.came

    def __enter__(self) -> "Interrupt":
        for number in _SIGNALS:
            if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.armed or (self.came and number == signal.SIGINT):
            raise KeyboardInterrupt
        if self.came:  # a closed terminal may be told of twice
            return
        self.came = number
        self._say(f"stopping: {self._what_happens} (Ctrl-C once more quits at once)")
