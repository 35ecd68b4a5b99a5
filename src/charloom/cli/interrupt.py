"""Ctrl-C as a wish: long work ends in good order, and a second one ends it at once."""

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any


class Interrupt:
    """Turns the first Ctrl-C into a wish to stop; before and after, it ends the command.

    Attributes:
        armed: whether there is something to bring to an end.
        came: whether Ctrl-C came.
    """

    def __init__(self, say: Callable[[str], None], what_happens: str):
        self.armed = False
        self.came = False
        self._say = say
        self._what_happens = what_happens
        self._before: Any = None

    def __enter__(self) -> "Interrupt":
        self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.came or not self.armed:
            raise KeyboardInterrupt
        self.came = True
        self._say(f"stopping: {self._what_happens} (Ctrl-C once more quits at once)")
