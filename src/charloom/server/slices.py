"""Answers that are made and sent in slices, so that no request keeps the event loop from the others."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from starlette.types import Send

from charloom.server.schema import encoded

_TURN_SECONDS = 0.002
_SEND_BYTES = 65_536
"""Bytes of an answer that are sent together."""
_HEADERS = [(b"content-type", b"application/json")]

SLICE = 2048
"""Numbers or objects that are made at once; they take about a millisecond."""


class Turn:
    """How long a request has had the event loop for itself."""

    def __init__(self) -> None:
        self._end = time.perf_counter() + _TURN_SECONDS

    @property
    def is_over(self) -> bool:
        """Whether others should have a turn."""
        return time.perf_counter() > self._end

    async def next(self) -> None:
        """Lets others have a turn."""
        await asyncio.sleep(0)
        self._end = time.perf_counter() + _TURN_SECONDS

    async def end_if_over(self) -> None:
        """Lets others have a turn if this one has been long enough."""
        if self.is_over:
            await self.next()


class Slices:
    """An array of an answer, whose items are made when they are sent.

    Args:
        slices: of the items.
    """

    def __init__(self, slices: Iterable[Sequence[Any]]) -> None:
        self._slices = slices

    def __iter__(self) -> Iterator[Sequence[Any]]:
        return iter(self._slices)


def sliced(items: Sequence[Any], make: Callable[[Any], Any], numbers_per_item: int = 1) -> Slices:
    """Returns the array of what `make` makes of each of `items`."""
    size = max(1, SLICE // numbers_per_item)
    return Slices(list(map(make, items[first : first + size])) for first in range(0, len(items), size))


def json_pieces(value: Any) -> Iterator[bytes]:
    """Yields the JSON of `value`, in which dictionaries, lists and iterators may have `Slices`, piece by piece.

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
    """Sends an answer, in pieces if it is long.

    Args:
        value: as of `json_pieces`.
        send: takes ASGI messages.
        raise_if_ended: is called between two pieces; what it raises ends the answer.
    """
    turn, held, is_begun = Turn(), bytearray(), False
    for piece in json_pieces(value):
        held += piece
        if len(held) < _SEND_BYTES and not turn.is_over:
            continue
        raise_if_ended()
        if len(held) >= _SEND_BYTES:
            if not is_begun:
                await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            is_begun = True
            await send({"type": "http.response.body", "body": bytes(held), "more_body": True})
            held.clear()
        await turn.end_if_over()
    if not is_begun:
        headers = [*_HEADERS, (b"content-length", str(len(held)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": bytes(held)})
