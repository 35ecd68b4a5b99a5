"""Where a request waits for what is made for it, for its client to go away, and for its time to be over."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import numpy as np
from starlette.types import Receive

from charloom.inference import TopPredictions
from charloom.server.batch_scheduler import GenerationRequest, TokenChunk
from charloom.server.engine import Engine, EngineStoppedError, QueueFullError
from charloom.server.problems import ApiError, stopping, too_busy, too_late

if TYPE_CHECKING:
    from charloom.server.service import Service

logger = logging.getLogger("charloom.server")

_GRACE_SECONDS = 2.0
_MAX_BEHIND = 1024
"""Characters that wait for a reader before their text is paused."""


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


class PendingRequest:
    """A request that waits: until there is news, its client goes away, its time is over, or the server stops."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._problem: Exception | None = None

    def end(self, problem: Exception) -> None:
        """Lets whoever waits meet a problem; the first one counts."""
        self._problem = self._problem or problem
        self._event.set()

    def wake(self) -> None:
        """Tells whoever waits that there is news."""
        self._event.set()

    def raise_if_ended(self) -> None:
        """Makes sure that the answer is still wanted.

        Raises:
            ClientGoneError: the client is gone.
            ApiError: the time is over, or the server stops.
        """
        if self._problem is not None:
            raise self._problem

    async def wait(self) -> None:
        """Returns when there is news.

        Raises:
            ClientGoneError, ApiError: as of `raise_if_ended`.
        """
        await self._event.wait()
        self._event.clear()
        self.raise_if_ended()

    @asynccontextmanager
    async def watched(self, receive: Receive, service: "Service", give_up: Callable[[], None]) -> AsyncIterator[None]:
        """Looks after the request while it is worked on, and calls `give_up` at the end, whatever that was."""
        watch, task = asyncio.create_task(self._watch(receive)), asyncio.current_task()
        assert task is not None  # requests are answered in tasks
        seconds, loop = service.limits.timeout, asyncio.get_running_loop()
        # Whoever does not read is not told so.
        timers = [
            loop.call_later(seconds, self.end, too_late(f"The answer was not done within {seconds:g} seconds.")),
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
    """Chunks for one request. A text whose reader does not keep up is paused, so that what waits is bounded.

    Args:
        engine: where they come from.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine
        self._chunks: dict[tuple[GenerationRequest, bool], TokenChunk] = {}

    def submit(self, requests: Sequence[GenerationRequest]) -> None:
        """Gives the engine requests, whose chunks come here.

        Raises:
            ApiError: there is no room for them now, or the engine has ended.
        """
        try:
            self._engine.submit(requests)
        except QueueFullError:
            raise too_busy() from None
        except EngineStoppedError:
            raise stopping() from None

    def put(self, chunk: TokenChunk) -> None:
        """Takes a chunk; one that cannot be taken ends the request, and no other."""
        key = chunk.request, chunk.is_prompt
        try:
            if (waiting := self._chunks.get(key)) is not None:
                chunk = _joined(waiting, chunk)
                chunk.request.is_paused = len(chunk.token_ids) > _MAX_BEHIND and not chunk.is_last
            self._chunks[key] = chunk
        except Exception:
            logger.exception("a text could not be delivered")
            self.end(_failed())
        self.wake()

    async def take(self) -> list[TokenChunk]:
        """Returns what has come since the last time, at least one chunk.

        Raises:
            ClientGoneError: the client is gone.
            ApiError: the time is over, the engine failed, or the server stops.
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
        """Looks after the HTTP request while its texts are generated, and gives them up at the end."""
        async with self.watched(receive, service, lambda: self._engine.cancel(requests)):
            try:
                yield
            finally:
                self._chunks.clear()  # they hold this queue by their requests: a cycle


def _failed() -> ApiError:
    return ApiError(500, "The server could not go on with this text. Its log says why.", code="engine")


def _joined(one: TokenChunk, other: TokenChunk) -> TokenChunk:
    """Returns two chunks of a text, one behind the other, as one."""
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
