"""Responses that are created and sent in slices, so that no request blocks the event loop."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from starlette.types import Send

from charloom.server.schema import encoded

_TURN_SECONDS = 0.002
_SEND_BYTES = 65_536
"""Minimum size in bytes of a part of a response that is sent separately."""
_HEADERS = [(b"content-type", b"application/json")]

SLICE = 2048
"""Number of values that are created at once; they take about a millisecond."""


class Turn:
    """Measures how long a request has occupied the event loop."""

    def __init__(self) -> None:
        self._end = time.perf_counter() + _TURN_SECONDS

    @property
    def is_over(self) -> bool:
        """Whether other tasks should run."""
        return time.perf_counter() > self._end

    async def next(self) -> None:
        """Lets other tasks run, and starts a new turn."""
        await asyncio.sleep(0)
        self._end = time.perf_counter() + _TURN_SECONDS

    async def end_if_over(self) -> None:
        """Lets other tasks run if this turn has been long enough."""
        if self.is_over:
            await self.next()


class Slices:
    """A JSON array whose items are created when they are sent.

    Args:
        slices: the items, slice by slice.
    """

    def __init__(self, slices: Iterable[Sequence[Any]]) -> None:
        self._slices = slices

    def __iter__(self) -> Iterator[Sequence[Any]]:
        return iter(self._slices)


def sliced(items: Sequence[Any], make: Callable[[Any], Any], numbers_per_item: int = 1) -> Slices:
    """Returns the array of `make(item)` for each of `items`."""
    size = max(1, SLICE // numbers_per_item)
    return Slices(list(map(make, items[first : first + size])) for first in range(0, len(items), size))


def json_pieces(value: Any) -> Iterator[bytes]:
    """Yields the JSON of `value` piece by piece. Its dictionaries, lists and iterators may contain `Slices`.

    >>> b"".join(json_pieces({"a": Slices([[1, 2], [], [3]]), "b": [Slices([])]}))
    b'{"a":[1,2,3],"b":[[]]}'
    """
    if isinstance(value, Slices):
        is_first = True
        yield b"["
        for items in value:
            if items:
                yield (b"" if is_first else b",") + encoded(items)[1:-1]
                is_first = False
        yield b"]"
    elif isinstance(value, dict):
        mark = b"{"
        for key, one in value.items():
            yield mark + encoded(key) + b":"
            yield from json_pieces(one)
            mark = b","
        yield b"}" if value else b"{}"
    elif isinstance(value, list | Iterator):
        mark = b"["
        for one in value:
            yield mark
            yield from json_pieces(one)
            mark = b","
        yield b"[]" if mark == b"[" else b"]"
    else:
        yield encoded(value)


async def send_json(value: Any, send: Send, raise_if_ended: Callable[[], None]) -> None:
    """Sends a JSON response, in pieces if it is long.

    Args:
        value: as for `json_pieces`.
        send: the ASGI send function.
        raise_if_ended: called between two pieces, and may raise to end the response.
    """
    turn, held, has_started = Turn(), bytearray(), False
    for piece in json_pieces(value):
        held += piece
        if len(held) < _SEND_BYTES and not turn.is_over:
            continue
        raise_if_ended()
        if len(held) >= _SEND_BYTES:
            if not has_started:
                await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            has_started = True
            await send({"type": "http.response.body", "body": bytes(held), "more_body": True})
            held.clear()
        await turn.end_if_over()
    if not has_started:
        headers = [*_HEADERS, (b"content-length", str(len(held)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": bytes(held)})
