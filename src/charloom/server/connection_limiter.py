"""Limits the open connections of a server, and closes idle ones to make room for others."""

from enum import IntEnum
from typing import Protocol, runtime_checkable

from charloom.server.limits import Limits

SPARE_CONNECTIONS = 16
"""Number of connections beyond the limit. They may only request `/health`."""


class Idleness(IntEnum):
    """Why a connection has no request in progress, in the order in which such connections are closed."""

    SILENT = 0  # the client has never sent anything
    ANSWERED = 1  # all requests have been answered
    BEGINNING = 2  # the head of a request has begun to arrive


@runtime_checkable
class Closable(Protocol):
    """A connection that the limiter can close."""

    def close_idle(self) -> None:
        """Closes the connection at once."""


class ConnectionLimiter:
    """Counts the open connections of a server, and closes idle ones.

    A connection without a request costs its client nothing, so such connections must not block others.
    They are closed for new ones, first those that have never sent anything.

    Attributes:
        limits: how many connections may be open.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._open: set[Closable] = set()
        self._idle: tuple[dict[Closable, None], ...] = tuple({} for _ in Idleness)  # each with the oldest first

    @property
    def is_full(self) -> bool:
        """Whether more connections are open than the limit allows."""
        return len(self._open) > self.limits.connections

    @property
    def is_overfull(self) -> bool:
        """Whether the spare connections are in use, too."""
        return len(self._open) > self.limits.connections + SPARE_CONNECTIONS

    def add(self, connection: Closable) -> None:
        """Adds a new connection. If there are too many, an idle one is closed."""
        self._open.add(connection)
        if self.is_full:
            idle = next((connections for connections in self._idle if connections), {})
            for other in list(idle)[:1]:
                self.remove(other)
                other.close_idle()

    def remove(self, connection: Closable) -> None:
        """Removes a connection."""
        self._open.discard(connection)
        self.set_idleness(connection, None)

    def set_idleness(self, connection: Closable, idleness: Idleness | None) -> None:
        """Records why a connection has no request in progress; None if it has one."""
        for each, connections in enumerate(self._idle):
            if each == idleness and connection in self._open:
                connections.setdefault(connection)
            else:
                connections.pop(connection, None)
