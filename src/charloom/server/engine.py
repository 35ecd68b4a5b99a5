"""The engine: one thread that reads prompts and generates all requested texts in parallel.

A round reads waiting prompts, then continues every text for some milliseconds, and hands the results over.
Requests enter and leave between two rounds. A generated text does not depend on that.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from charloom.server.batch_scheduler import ROUND_SECONDS, BatchScheduler
from charloom.server.generation_request import GenerationRequest, TokenChunk
from charloom.server.limits import Limits
from charloom.server.model_session import ModelSession

logger = logging.getLogger("charloom.server")

_WAIT_SECONDS = 0.050
"""Maximum time that texts in progress wait so that others get their first character."""
_READING_SECONDS = 0.020
"""Seconds per round for reading prompts while other texts are generated, because new requests wait for a character."""
_USUAL_SENDING_SECONDS = 30e-6
_STOPPING_SECONDS = 5.0
"""Time for the thread to end. It is a daemon, so the process can end without it."""


class QueueFullError(Exception):
    """The queue has no room for these requests."""


class EngineStoppedError(Exception):
    """The engine's thread has ended, so no texts can be generated."""


class Engine:
    """Takes requests from an event loop, and processes them in a separate thread.

    A failure usually ends only the text that fails (see `BatchScheduler`). Other failures end all texts of one model.
    If even that fails, the thread ends and reports it.

    Attributes:
        characters_generated: number of characters generated so far.

    Args:
        limits: how many texts are generated at once, and how many may wait.
        on_round: called in the event loop with the seconds from a round's start until its last chunk is sent.
        on_death: called in the event loop if the thread ends because of a failure.
    """

    def __init__(
        self,
        limits: Limits,
        on_round: Callable[[float], None] = lambda seconds: None,
        on_death: Callable[[], None] = lambda: None,
    ) -> None:
        self.characters_generated = 0
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
        self._sending_seconds = _USUAL_SENDING_SECONDS  # per chunk
        self._thread = threading.Thread(target=self._run, name="charloom engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Starts the thread, which sends its results to `loop`."""
        self._loop = loop
        self._thread.start()

    def stop(self) -> None:
        """Stops the thread, and leaves all texts unfinished."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        self._round_sent.release()
        self._thread.join(_STOPPING_SECONDS)

    @property
    def is_alive(self) -> bool:
        """Whether the thread is running."""
        return self._thread.is_alive()

    @property
    def active(self) -> int:
        """Number of texts whose prompt is being read or that are being generated."""
        return self._active

    @property
    def queued(self) -> int:
        """Number of texts that wait."""
        return len(self._waiting)

    def submit(self, requests: Sequence[GenerationRequest]) -> None:
        """Adds all of `requests`, or none.

        Raises:
            QueueFullError: too many requests are waiting.
            EngineStoppedError: the engine has died or is stopping.
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
        """Continues a paused text."""
        with self._changed:
            request.is_paused = False
            self._changed.notify()

    def cancel(self, requests: Sequence[GenerationRequest]) -> None:
        """Cancels requests, whether they are waiting or in progress."""
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
                    logger.exception("the engine failed; ending all texts of %s", scheduler.model.name)
                    self._call_in_loop(self._fail_all, scheduler.abort_all(), problem)

    def _fail_all(self, requests: Sequence[GenerationRequest], problem: Exception) -> None:
        """Ends requests with a problem. Runs in the event loop."""
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
        """Admits waiting requests and waits for work. Returns whether to continue."""
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
        """Does some work, and passes its chunks to the event loop once that has sent the previous ones.

        So the event loop is at most one round behind, and the next round is computed meanwhile.
        """
        begin = time.perf_counter()
        chunks = work(*arguments)
        if not chunks:
            return
        self.characters_generated += sum(len(one.token_ids) for one in chunks if not one.is_prompt)
        self._round_sent.acquire()
        if self._is_stopping or self._loop is None:
            self._round_sent.release()  # for the rest of this round
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
            # Tasks that were woken run, and send, before this callback.
            self._loop.call_soon(self._after_sending, begin, received, len(chunks))

    def _deliver(self, chunk: TokenChunk) -> None:
        try:
            chunk.request.on_chunk(chunk)
        except Exception:  # the other chunks must still be delivered
            logger.exception("cannot deliver a chunk of a text")
            chunk.request.is_cancelled = True

    def _after_sending(self, begin: float, received: float, count: int) -> None:
        now = time.perf_counter()
        seconds = (now - received) / count
        self._sending_seconds += 0.1 * (seconds - self._sending_seconds)
        self._round_sent.release()
        self._on_round(now - begin)
