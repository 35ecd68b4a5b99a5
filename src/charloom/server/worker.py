"""A thread that does one thing after another, each of which can be given up."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_STOPPING_SECONDS = 2.0


class TaskCancelledError(Exception):
    """Nobody waits for the work any more."""


@dataclass(eq=False)
class Task:
    """Work that is given to a `Worker`.

    Attributes:
        work: what is to be done; it calls `check` every few milliseconds.
        done: is called in the event loop when it is done, or has failed.
        result: what came of it.
        problem: why it failed.
    """

    work: "Callable[[Task], Any]"
    done: Callable[[], None]
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    result: Any = None
    problem: Exception | None = None
    _is_cancelled: bool = False

    def cancel(self) -> None:
        """Ends the work at its next `check`, or before it begins."""
        self._is_cancelled = True

    def check(self) -> None:
        """Lets the work go on.

        Raises:
            TaskCancelledError: it should not.
        """
        if self._is_cancelled:
            raise TaskCancelledError


class Worker:
    """A thread that does tasks in the order in which they come. It does not keep the process from ending.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: deque[Task] = deque()
        self._current: Task | None = None
        self._changed = threading.Condition()
        self._is_stopping = False
        self._thread: threading.Thread | None = None

    @property
    def count(self) -> int:
        """Tasks that wait or are being done."""
        return len(self._tasks) + (self._current is not None)

    def submit(self, task: Task) -> None:
        """Takes a task, to be done after those before it."""
        with self._changed:
            self._tasks.append(task)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify()

    def cancel(self, task: Task) -> None:
        """Gives up a task, wherever it is."""
        task.cancel()
        with self._changed:
            if task in self._tasks:
                self._tasks.remove(task)

    def stop(self) -> None:
        """Gives up all tasks, and ends the thread."""
        with self._changed:
            self._is_stopping = True
            for task in (*self._tasks, *([] if self._current is None else [self._current])):
                task.cancel()
            self._tasks.clear()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(_STOPPING_SECONDS)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._current = None
                while not self._tasks and not self._is_stopping:
                    self._changed.wait()
                if self._is_stopping:
                    return
                task = self._current = self._tasks.popleft()
            try:
                task.check()
                task.result = task.work(task)
            except Exception as problem:
                task.problem = problem
            try:
                task.loop.call_soon_threadsafe(task.done)
            except RuntimeError:  # the loop is closed
                return
            del task  # what came of it is large, and no longer this thread's
