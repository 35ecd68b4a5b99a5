"""How many connections a server has open, and which of them it closes to make room for others."""

from enum import IntEnum
from typing import Protocol, runtime_checkable

from charloom.server.limits import Limits

SPARE_CONNECTIONS = 16
"""Connections beyond the limit. They may only ask whether the server is healthy."""


class Idleness(IntEnum):
    """Why no request is under way on a connection, in the order in which such connections give way."""

    SILENT = 0  # nothing has ever been sent
    ANSWERED = 1  # all requests have been answered
    BEGINNING = 2  # a request's head has begun to arrive


@runtime_checkable
class Closable(Protocol):
    """A connection as far as the crowd is concerned."""

    def close_idle(self) -> None:
        """Closes the connection at once."""


class ConnectionLimiter:
    """The connections of a server.

    A connection on which no request is under way costs its client nothing, so such connections must not be able to
    keep others out: they give way to newcomers, those that never sent anything first.

    Attributes:
        limits: how many connections may be open.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._open: set[Closable] = set()
        self._idle: tuple[dict[Closable, None], ...] = tuple({} for _ in Idleness)  # the oldest first

    @property
    def is_full(self) -> bool:
        """Whether more connections are open than the limit allows."""
        return len(self._open) > self.limits.connections

    @property
    def is_overfull(self) -> bool:
        """Whether the spare places are taken, too."""
        return len(self._open) > self.limits.connections + SPARE_CONNECTIONS

    def add(self, connection: Closable) -> None:
        """Counts a new connection. If there are too many, an idle one gives way."""
        self._open.add(connection)
        if self.is_full:
            idle = next((connections for connections in self._idle if connections), {})
            for other in list(idle)[:1]:
                self.remove(other)
                other.close_idle()

    def remove(self, connection: Closable) -> None:
        """Stops counting a connection."""
        self._open.discard(connection)
        self.set_idleness(connection, None)

    def set_idleness(self, connection: Closable, idleness: Idleness | None) -> None:
        """Notes why no request is under way on a connection; None when one is."""
        for each, connections in enumerate(self._idle):
            if each == idleness and connection in self._open:
                connections.setdefault(connection)
            else:
                connections.pop(connection, None)
