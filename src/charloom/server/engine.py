"""The engine: one thread that reads prompts and writes texts, all that are asked for side by side.

A round reads what waits to be read, then lets every text write on for some milliseconds, and hands over what came of
it. Who asks joins between two rounds, and who is done or gone leaves. What a text becomes depends on none of that.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from charloom.server.desk import ROUND_SECONDS, Delivery, Desk, Order
from charloom.server.limits import Limits
from charloom.server.served import ServedModel

logger = logging.getLogger("charloom.server")

_WAIT_SECONDS = 0.050
"""How long texts may have to wait, at most, for others to get their first character."""
_READING_SECONDS = 0.020
"""For reading prompts, in a round in which others write: who has just come waits for the first character."""
_USUAL_SENDING_SECONDS = 30e-6


class QueueFullError(Exception):
    """More texts are asked for than may wait."""


class Engine:
    """Takes orders from an event loop, and works on them in a thread of its own.

    Attributes:
        characters_written: so far.

    Args:
        limits: how many texts are written at once, and how many wait.
        observe: is told, in the event loop, the seconds from the first choice of a round to the last one's sending.
    """

    def __init__(self, limits: Limits, observe: Callable[[float], None] = lambda seconds: None) -> None:
        self.characters_written = 0
        self._limits = limits
        self._observe = observe
        self._desks: dict[ServedModel, Desk] = {}
        self._waiting: deque[Order] = deque()
        self._active = 0
        self._changed = threading.Condition()
        self._is_stopping = False
        self._handed_over = threading.Semaphore()
        self._sending_seconds = _USUAL_SENDING_SECONDS  # a delivery
        self._thread = threading.Thread(target=self._run, name="charloom engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begins to work for `loop`."""
        self._loop = loop
        self._thread.start()

    def stop(self) -> None:
        """Leaves all work where it is, and ends the thread."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        self._handed_over.release()
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Whether the thread works, or waits for work."""
        return self._thread.is_alive()

    @property
    def active(self) -> int:
        """Texts that are read or written now."""
        return self._active

    @property
    def queued(self) -> int:
        """Texts that wait."""
        return len(self._waiting)

    def submit(self, orders: Sequence[Order]) -> None:
        """Takes orders, all or none.

        Raises:
            QueueFullError: too many wait already.
        """
        with self._changed:
            free = max(0, self._limits.max_streams - self._active)
            if len(self._waiting) + len(orders) > self._limits.max_queue + free:
                raise QueueFullError
            self._waiting.extend(orders)
            self._changed.notify()

    def resume(self, order: Order) -> None:
        """Lets a text that was paused go on."""
        with self._changed:
            order.is_paused = False
            self._changed.notify()

    def cancel(self, orders: Sequence[Order]) -> None:
        """Gives up orders, wherever they are."""
        for order in orders:
            order.is_cancelled, order.is_paused = True, False
        with self._changed:
            self._waiting = deque(order for order in self._waiting if not order.is_cancelled)
            self._changed.notify()

    def _run(self) -> None:
        while self._admit():
            for desk in list(self._desks.values()):
                try:
                    desk.look_after()
                    self._hand_over(desk.read, time.perf_counter() + _READING_SECONDS)
                    self._hand_over(desk.write_first)
                    now = time.perf_counter()
                    if not desk.is_reading or now - desk.wrote > _WAIT_SECONDS:
                        desk.wrote = now
                        self._hand_over(desk.write, max(1, int(ROUND_SECONDS / self._sending_seconds)))
                except Exception as problem:
                    logger.exception("the engine failed")
                    self._hand_over(desk.give_up, problem)

    def _admit(self) -> bool:
        """Takes in what waits, as far as there is room; waits for work; returns whether to go on."""
        with self._changed:
            while True:
                if self._is_stopping:
                    return False
                self._desks = {model: desk for model, desk in self._desks.items() if desk.count}
                self._active = sum(desk.count for desk in self._desks.values())
                while self._waiting and self._active < self._limits.max_streams:
                    order = self._waiting.popleft()
                    self._desks.setdefault(order.model, Desk(order.model)).begin(order)
                    self._active += 1
                if any(desk.has_work for desk in self._desks.values()):
                    return True
                self._changed.wait()

    def _hand_over(self, work: Callable[..., list[Delivery]], *arguments: Any) -> None:
        """Does some work, and gives what comes of it to the event loop, when that has sent what came before.

        So it is never behind by more than one round, and the next is computed meanwhile.
        """
        begin = time.perf_counter()
        deliveries = work(*arguments)
        if not deliveries:
            return
        self.characters_written += sum(len(one.token_ids) for one in deliveries if not one.is_prompt)
        self._handed_over.acquire()
        if self._is_stopping or self._loop is None:
            self._handed_over.release()  # for whatever this round hands over yet
            return
        try:
            self._loop.call_soon_threadsafe(self._receive, deliveries, begin)
        except RuntimeError:  # the loop is closed
            self._is_stopping = True
            self._handed_over.release()

    def _receive(self, deliveries: list[Delivery], begin: float) -> None:
        assert self._loop is not None
        received = time.perf_counter()
        try:
            for delivery in deliveries:
                if not delivery.order.is_cancelled:
                    delivery.order.deliver(delivery)
        finally:
            # Whoever was woken runs, and sends, before this does.
            self._loop.call_soon(self._sent, begin, received, len(deliveries))

    def _sent(self, begin: float, received: float, count: int) -> None:
        now = time.perf_counter()
        self._observe(now - begin)
        seconds = (now - received) / count
        self._sending_seconds += 0.1 * (seconds - self._sending_seconds)
        self._handed_over.release()
