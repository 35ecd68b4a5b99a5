"""Waits for the results of a request, for its client to disconnect, and for its timeout."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import numpy as np
from starlette.types import Receive

from charloom.inference import TopPredictions
from charloom.server.engine import Engine, EngineStoppedError, QueueFullError
from charloom.server.generation_request import GenerationRequest, TokenChunk
from charloom.server.problems import ApiError, stopping, too_busy, too_late

if TYPE_CHECKING:
    from charloom.server.service import Service

logger = logging.getLogger("charloom.server")

_GRACE_SECONDS = 2.0
_MAX_BEHIND = 1024
"""Number of characters that may wait for a reader before their text is paused."""


class ClientGoneError(Exception):
    """The client no longer waits for the response."""


class PendingRequest:
    """A request in progress. It ends with its results, its client, its timeout or the server."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._problem: Exception | None = None

    def end(self, problem: Exception) -> None:
        """Ends the request with a problem. Only the first problem counts."""
        self._problem = self._problem or problem
        self._event.set()

    def wake(self) -> None:
        """Wakes the task that waits for results."""
        self._event.set()

    def raise_if_ended(self) -> None:
        """Raises the problem that ended the request, if there is one.

        Raises:
            ClientGoneError: the client has disconnected.
            ApiError: the request timed out, or the server is stopping.
        """
        if self._problem is not None:
            raise self._problem

    async def wait(self) -> None:
        """Waits for results.

        Raises:
            ClientGoneError, ApiError: as in `raise_if_ended`.
        """
        await self._event.wait()
        self._event.clear()
        self.raise_if_ended()

    @asynccontextmanager
    async def watched(self, receive: Receive, service: "Service", give_up: Callable[[], None]) -> AsyncIterator[None]:
        """Watches for a disconnect or a timeout while the request is processed, and calls `give_up` at the end."""
        watch, task = asyncio.create_task(self._watch(receive)), asyncio.current_task()
        assert task is not None  # requests are answered in tasks
        seconds, loop = service.limits.timeout, asyncio.get_running_loop()
        # A task that is blocked in sending does not notice the first timer.
        timers = [
            loop.call_later(seconds, self.end, too_late(f"The response was not complete within {seconds:g} seconds.")),
            loop.call_later(seconds + _GRACE_SECONDS, task.cancel),
        ]
        service.pending.add(self)
        try:
            yield
        finally:
            service.pending.discard(self)
            for timer in timers:
                timer.cancel()
            watch.cancel()
            give_up()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.end(ClientGoneError())


class ResponseQueue(PendingRequest):
    """The chunks of one request. A text whose reader falls behind is paused, so the queue is bounded.

    Args:
        engine: generates the texts.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine
        self._chunks: dict[tuple[GenerationRequest, bool], TokenChunk] = {}

    def submit(self, requests: Sequence[GenerationRequest]) -> None:
        """Submits requests to the engine. Their chunks arrive in this queue.

        Raises:
            ApiError: the engine has no room for them now, or has stopped.
        """
        try:
            self._engine.submit(requests)
        except QueueFullError:
            raise too_busy() from None
        except EngineStoppedError:
            raise stopping() from None

    def put(self, chunk: TokenChunk) -> None:
        """Adds a chunk. If that fails, only this request ends."""
        key = chunk.request, chunk.is_prompt
        try:
            if (waiting := self._chunks.get(key)) is not None:
                chunk = _joined(waiting, chunk)
                chunk.request.is_paused = len(chunk.token_ids) > _MAX_BEHIND and not chunk.is_last
            self._chunks[key] = chunk
        except Exception:
            logger.exception("cannot deliver a chunk of a text")
            self.end(_failed())
        self.wake()

    async def take(self) -> list[TokenChunk]:
        """Returns the chunks since the last call, at least one.

        Raises:
            ClientGoneError: the client has disconnected.
            ApiError: the request timed out, the engine failed, or the server is stopping.
        """
        await self.wait()
        chunks, self._chunks = list(self._chunks.values()), {}
        for chunk in chunks:
            if chunk.request.is_paused:
                self._engine.resume(chunk.request)
            if chunk.problem is not None:
                raise _failed()
        return chunks

    @asynccontextmanager
    async def collecting(
        self, requests: Sequence[GenerationRequest], receive: Receive, service: "Service"
    ) -> AsyncIterator[None]:
        """Watches the HTTP request while its texts are generated, and cancels them at the end."""
        async with self.watched(receive, service, lambda: self._engine.cancel(requests)):
            try:
                yield
            finally:
                self._chunks.clear()  # they refer to this queue through their requests, which is a cycle


def _failed() -> ApiError:
    return ApiError(500, "The server cannot continue this text. See its log for the reason.", code="engine")


def _joined(one: TokenChunk, other: TokenChunk) -> TokenChunk:
    """Returns two consecutive chunks of a text as one."""
    arrays = [(one.token_ids, other.token_ids)]
    if (
        one.nats is not None
        and other.nats is not None
        and one.top_predictions is not None
        and other.top_predictions is not None
    ):
        arrays += [(one.nats, other.nats), *zip(one.top_predictions, other.top_predictions, strict=True)]
    token_ids, *likelihoods = (np.concatenate(pair) for pair in arrays)
    nats, top_predictions = (likelihoods[0], TopPredictions(*likelihoods[1:])) if likelihoods else (None, None)
    return other._replace(token_ids=token_ids, nats=nats, top_predictions=top_predictions)
