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

from charloom.server.batch_scheduler import ROUND_SECONDS, BatchScheduler, GenerationRequest, TokenChunk
from charloom.server.limits import Limits
from charloom.server.model_session import ModelSession

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
    """Takes requests from an event loop, and works on them in a thread of its own.

    What fails is a text's own failure (see `BatchScheduler`). If it is not, the texts of one model are given up. If
    even that fails, the thread ends, and says so.

    Attributes:
        characters_written: so far.

    Args:
        limits: how many texts are written at once, and how many wait.
        on_round: is told, in the event loop, the seconds from the first choice of a round to the last one's sending.
        on_death: is called, in the event loop, when the thread ends by a failure.
    """

    def __init__(
        self,
        limits: Limits,
        on_round: Callable[[float], None] = lambda seconds: None,
        on_death: Callable[[], None] = lambda: None,
    ) -> None:
        self.characters_written = 0
        self.on_death = on_death
        self._limits = limits
        self._on_round = on_round
        self._schedulers: dict[ModelSession, BatchScheduler] = {}
        self._waiting: deque[GenerationRequest] = deque()
        self._active = 0
        self._changed = threading.Condition()
        self._is_stopping = False
        self._has_died = False
        self._round_sent = threading.Semaphore()
        self._sending_seconds = _USUAL_SENDING_SECONDS  # a chunk
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
        self._round_sent.release()
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

    def submit(self, requests: Sequence[GenerationRequest]) -> None:
        """Takes requests, all or none.

        Raises:
            QueueFullError: too many wait already.
            EngineStoppedError: the engine has died, or is told to stop.
        """
        with self._changed:
            if self._has_died or self._is_stopping:
                raise EngineStoppedError
            free = max(0, self._limits.max_streams - self._active)
            if len(self._waiting) + len(requests) > self._limits.max_queue + free:
                raise QueueFullError
            self._waiting.extend(requests)
            self._changed.notify()

    def resume(self, request: GenerationRequest) -> None:
        """Lets a text that was paused go on."""
        with self._changed:
            request.is_paused = False
            self._changed.notify()

    def cancel(self, requests: Sequence[GenerationRequest]) -> None:
        """Gives up requests, wherever they are."""
        for request in requests:
            request.is_cancelled, request.is_paused = True, False
        with self._changed:
            self._waiting = deque(request for request in self._waiting if not request.is_cancelled)
            self._changed.notify()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException:
            with self._changed:
                self._has_died = True
            logger.critical("the engine has died", exc_info=True)
            self._call_in_loop(self.on_death)

    def _work(self) -> None:
        while self._admit():
            for scheduler in list(self._schedulers.values()):
                try:
                    self._run_and_send(scheduler.refresh)
                    self._run_and_send(scheduler.read_prompts, time.perf_counter() + _READING_SECONDS)
                    self._run_and_send(scheduler.generate_first)
                    now = time.perf_counter()
                    if not scheduler.is_reading or now - scheduler.last_round > _WAIT_SECONDS:
                        scheduler.last_round = now
                        self._run_and_send(scheduler.generate, max(1, int(ROUND_SECONDS / self._sending_seconds)))
                except Exception as problem:
                    logger.exception("the engine failed; all texts of %s are given up", scheduler.model.name)
                    self._call_in_loop(self._give_up, scheduler.abort_all(), problem)

    def _give_up(self, requests: Sequence[GenerationRequest], problem: Exception) -> None:
        """Tells requests, in the event loop, that nothing more comes."""
        for request in requests:
            self._deliver(TokenChunk(request, request.prompt[:0], is_last=True, problem=problem))

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
                self._schedulers = {
                    model: scheduler for model, scheduler in self._schedulers.items() if scheduler.count
                }
                self._active = sum(scheduler.count for scheduler in self._schedulers.values())
                while self._waiting and self._active < self._limits.max_streams:
                    request = self._waiting.popleft()
                    if request.model not in self._schedulers:
                        self._schedulers[request.model] = BatchScheduler(request.model)
                    self._schedulers[request.model].add(request)
                    self._active += 1
                if any(scheduler.has_work for scheduler in self._schedulers.values()):
                    return True
                self._changed.wait()

    def _run_and_send(self, work: Callable[..., list[TokenChunk]], *arguments: Any) -> None:
        """Does some work, and gives what comes of it to the event loop, when that has sent what came before.

        So it is never behind by more than one round, and the next is computed meanwhile.
        """
        begin = time.perf_counter()
        chunks = work(*arguments)
        if not chunks:
            return
        self.characters_written += sum(len(one.token_ids) for one in chunks if not one.is_prompt)
        self._round_sent.acquire()
        if self._is_stopping or self._loop is None:
            self._round_sent.release()  # for whatever this round hands over yet
            return
        self._call_in_loop(self._deliver_all, chunks, begin)
        if self._is_stopping:
            self._round_sent.release()

    def _deliver_all(self, chunks: list[TokenChunk], begin: float) -> None:
        assert self._loop is not None
        received = time.perf_counter()
        try:
            for chunk in chunks:
                if not chunk.request.is_cancelled:
                    self._deliver(chunk)
        finally:
            # Whoever was woken runs, and sends, before this does.
            self._loop.call_soon(self._after_sending, begin, received, len(chunks))

    def _deliver(self, chunk: TokenChunk) -> None:
        try:
            chunk.request.on_chunk(chunk)
        except Exception:  # others wait for theirs
            logger.exception("a text could not be delivered")
            chunk.request.is_cancelled = True

    def _after_sending(self, begin: float, received: float, count: int) -> None:
        now = time.perf_counter()
        seconds = (now - received) / count
        self._sending_seconds += 0.1 * (seconds - self._sending_seconds)
        self._round_sent.release()
        self._on_round(now - begin)
