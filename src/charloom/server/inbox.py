"""Where a request waits for what the engine has for it, for its client to go away, and for its time to be over."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from starlette.types import Receive

from charloom.server.engine import Delivery, Engine, Order
from charloom.server.problems import ApiError


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


class Inbox:
    """Deliveries for one request."""

    def __init__(self) -> None:
        self._deliveries: list[Delivery] = []
        self._event = asyncio.Event()
        self._problem: Exception | None = None

    def put(self, delivery: Delivery) -> None:
        """Takes a delivery."""
        self._deliveries.append(delivery)
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
            if delivery.problem is not None:
                raise ApiError(500, "The server could not go on with this text. Its log says why.", code="engine")
        return deliveries

    @asynccontextmanager
    async def served(
        self, engine: Engine, orders: Sequence[Order], receive: Receive, seconds: float
    ) -> AsyncIterator[None]:
        """Looks after a request while its orders are worked on, and gives them up at the end, whatever it was."""
        watch = asyncio.create_task(self._watch(receive))
        late = ApiError(408, f"The text was not done within {seconds:g} seconds.", code="timeout")
        timer = asyncio.get_running_loop().call_later(seconds, self.end, late)
        try:
            yield
        finally:
            timer.cancel()
            watch.cancel()
            engine.cancel(orders)

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.end(ClientGoneError())
