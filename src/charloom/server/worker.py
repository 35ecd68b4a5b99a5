"""A thread that runs cancellable tasks one after another."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_STOPPING_SECONDS = 2.0


class TaskCancelledError(Exception):
    """The task was cancelled."""


@dataclass(eq=False)
class Task:
    """A task for a `Worker`.

    Attributes:
        work: the function to run. It calls `check` every few milliseconds.
        done: called in the event loop when the task has finished or failed.
        result: its result.
        problem: why it failed.
    """

    work: "Callable[[Task], Any]"
    done: Callable[[], None]
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    result: Any = None
    problem: Exception | None = None
    _is_cancelled: bool = False

    def cancel(self) -> None:
        """Stops the task at its next `check`, or before it starts."""
        self._is_cancelled = True

    def check(self) -> None:
        """Raises if the task was cancelled.

        Raises:
            TaskCancelledError: it was.
        """
        if self._is_cancelled:
            raise TaskCancelledError


class Worker:
    """A daemon thread that runs tasks in the order of their submission.

    Args:
        name: name of the thread.
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
        """Number of tasks that wait or run."""
        return len(self._tasks) + (self._current is not None)

    def submit(self, task: Task) -> None:
        """Adds a task to the queue."""
        with self._changed:
            self._tasks.append(task)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify()

    def cancel(self, task: Task) -> None:
        """Cancels a task, whether it waits or runs."""
        task.cancel()
        with self._changed:
            if task in self._tasks:
                self._tasks.remove(task)

    def stop(self) -> None:
        """Cancels all tasks, and ends the thread."""
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
            del task  # frees its result, which can be large
