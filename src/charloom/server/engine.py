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
_STOPPING_SECONDS = 5.0
"""For the thread to end; it is a daemon, and does not keep the process from ending."""


class QueueFullError(Exception):
    """More texts are asked for than may wait."""


class EngineStoppedError(Exception):
    """The engine's thread has ended: nothing is written any more."""


class Engine:
    """Takes orders from an event loop, and works on them in a thread of its own.

    What fails is a text's own failure (see `Desk`). Where it is not, the texts of one model are given up. If even that
    fails, the thread ends, and says so.

    Attributes:
        characters_written: so far.

    Args:
        limits: how many texts are written at once, and how many wait.
        observe: is told, in the event loop, the seconds from the first choice of a round to the last one's sending.
        died: is called, in the event loop, when the thread ends by a failure.
    """

    def __init__(
        self,
        limits: Limits,
        observe: Callable[[float], None] = lambda seconds: None,
        died: Callable[[], None] = lambda: None,
    ) -> None:
        self.characters_written = 0
        self.died = died
        self._limits = limits
        self._observe = observe
        self._desks: dict[ServedModel, Desk] = {}
        self._waiting: deque[Order] = deque()
        self._active = 0
        self._changed = threading.Condition()
        self._is_stopping = False
        self._has_died = False
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
        self._thread.join(_STOPPING_SECONDS)

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
            EngineStoppedError: the engine has died, or is told to stop.
        """
        with self._changed:
            if self._has_died or self._is_stopping:
                raise EngineStoppedError
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
        try:
            self._work()
        except BaseException:
            with self._changed:
                self._has_died = True
            logger.critical("the engine has died", exc_info=True)
            self._call_in_loop(self.died)

    def _work(self) -> None:
        while self._admit():
            for desk in list(self._desks.values()):
                try:
                    self._hand_over(desk.look_after)
                    self._hand_over(desk.read, time.perf_counter() + _READING_SECONDS)
                    self._hand_over(desk.write_first)
                    now = time.perf_counter()
                    if not desk.is_reading or now - desk.wrote > _WAIT_SECONDS:
                        desk.wrote = now
                        self._hand_over(desk.write, max(1, int(ROUND_SECONDS / self._sending_seconds)))
                except Exception as problem:
                    logger.exception("the engine failed; all texts of %s are given up", desk.model.name)
                    self._call_in_loop(self._give_up, desk.abandon(), problem)

    def _give_up(self, orders: Sequence[Order], problem: Exception) -> None:
        """Tells orders, in the event loop, that nothing more comes."""
        for order in orders:
            self._deliver(Delivery(order, order.prompt[:0], is_last=True, problem=problem))

    def _call_in_loop(self, function: Callable[..., None], *arguments: Any) -> None:
        if self._loop is None:
            return
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop is closed
            self._is_stopping = True

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
                    if order.model not in self._desks:
                        self._desks[order.model] = Desk(order.model)
                    self._desks[order.model].begin(order)
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
        self._call_in_loop(self._receive, deliveries, begin)
        if self._is_stopping:
            self._handed_over.release()

    def _receive(self, deliveries: list[Delivery], begin: float) -> None:
        assert self._loop is not None
        received = time.perf_counter()
        try:
            for delivery in deliveries:
                if not delivery.order.is_cancelled:
                    self._deliver(delivery)
        finally:
            # Whoever was woken runs, and sends, before this does.
            self._loop.call_soon(self._sent, begin, received, len(deliveries))

    def _deliver(self, delivery: Delivery) -> None:
        try:
            delivery.order.deliver(delivery)
        except Exception:  # others wait for theirs
            logger.exception("a text could not be delivered")
            delivery.order.is_cancelled = True

    def _sent(self, begin: float, received: float, count: int) -> None:
        now = time.perf_counter()
        seconds = (now - received) / count
        self._sending_seconds += 0.1 * (seconds - self._sending_seconds)
        self._handed_over.release()
        self._observe(now - begin)
