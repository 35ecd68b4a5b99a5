"""Where a request waits for what the engine has for it, for its client to go away, and for its time to be over."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import numpy as np
from starlette.types import Receive

from charloom.inference import Guesses
from charloom.server.desk import Delivery, Order
from charloom.server.engine import Engine
from charloom.server.problems import ApiError, too_late

if TYPE_CHECKING:
    from charloom.server.service import Service

_GRACE_SECONDS = 2.0
_BEHIND = 1024
"""Characters that wait for a reader before their text is paused."""


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


class Inbox:
    """Deliveries for one request. A text whose reader does not keep up is paused, so that what waits is bounded.

    Args:
        engine: where they come from.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._deliveries: list[Delivery] = []
        self._event = asyncio.Event()
        self._problem: Exception | None = None

    def put(self, delivery: Delivery) -> None:
        """Takes a delivery."""
        at = next((at for at, one in enumerate(self._deliveries) if _go_together(one, delivery)), None)
        if at is None:
            self._deliveries.append(delivery)
        else:
            joined = self._deliveries[at] = _joined(self._deliveries[at], delivery)
            delivery.order.is_paused = len(joined.token_ids) > _BEHIND and not joined.is_last
        self._event.set()

    def end(self, problem: Exception) -> None:
        """Lets whoever takes deliveries meet a problem."""
        self._problem = self._problem or problem
        self._event.set()

    async def take(self) -> list[Delivery]:
        """Returns what has come since the last time, at least one delivery.

        Raises:
            ClientGoneError: the client is gone.
            ApiError: the time is over, or the engine failed.
        """
        await self._event.wait()
        self._event.clear()
        if self._problem is not None:
            raise self._problem
        deliveries, self._deliveries = self._deliveries, []
        for delivery in deliveries:
            if delivery.order.is_paused:
                self._engine.resume(delivery.order)
            if delivery.problem is not None:
                raise ApiError(500, "The server could not go on with this text. Its log says why.", code="engine")
        return deliveries

    @asynccontextmanager
    async def served(self, orders: Sequence[Order], receive: Receive, service: "Service") -> AsyncIterator[None]:
        """Looks after a request while its orders are worked on, and gives them up at the end, whatever it was."""
        watch, task = asyncio.create_task(self._watch(receive)), asyncio.current_task()
        assert task is not None  # requests are answered in tasks
        seconds, loop = service.limits.timeout, asyncio.get_running_loop()
        # Whoever does not read is not told so.
        timers = [
            loop.call_later(seconds, self.end, too_late(f"The text was not done within {seconds:g} seconds.")),
            loop.call_later(seconds + _GRACE_SECONDS, task.cancel),
        ]
        service.inboxes.add(self)
        try:
            yield
        finally:
            service.inboxes.discard(self)
            for timer in timers:
                timer.cancel()
            watch.cancel()
            self._engine.cancel(orders)

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.end(ClientGoneError())


def _go_together(one: Delivery, other: Delivery) -> bool:
    return one.order is other.order and one.is_prompt == other.is_prompt


def _joined(one: Delivery, other: Delivery) -> Delivery:
    """Returns two deliveries of a text, one behind the other, as one."""
    arrays = [(one.token_ids, other.token_ids)]
    if one.nats is not None and other.nats is not None and one.guesses is not None and other.guesses is not None:
        arrays += [(one.nats, other.nats), *zip(one.guesses, other.guesses, strict=True)]
    token_ids, *likelihoods = (np.concatenate(pair) for pair in arrays)
    nats, guesses = (likelihoods[0], Guesses(*likelihoods[1:])) if likelihoods else (None, None)
    return other._replace(token_ids=token_ids, nats=nats, guesses=guesses)
