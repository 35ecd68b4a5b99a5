"""The access log and request counters. The length of a log line does not depend on what the client sent."""

import logging
import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from charloom.printable import one_line
from charloom.server.connection import CLIENT_LEFT, ENDED
from charloom.server.problems import PROBLEM
from charloom.server.routes import operation_of
from charloom.server.service import Service

logger = logging.getLogger("charloom.server")

_MAX_SHOWN = 200


class AccessLog:
    """Middleware that logs and counts each request.

    Args:
        app: the wrapped application.
        service: the server's parts.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, status, is_whole = time.perf_counter(), 0, False

        async def observed_send(message: Message) -> None:
            nonlocal status, is_whole
            await send(message)
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                is_whole = not message.get("more_body", False) and not _status_at_end(scope)

        try:
            await self._app(scope, receive, observed_send)
        finally:
            cut_short, problem = "", scope.get(PROBLEM)
            if not is_whole or problem is not None:
                if 0 < status < 400:
                    cut_short = " cut short" if problem is None else f" cut short: {problem.code}"
                reason = 500 if status else CLIENT_LEFT
                status = _status_at_end(scope) or (problem.status if problem is not None else reason)
            self._record(scope, status, cut_short, time.perf_counter() - begin)

    def _record(self, scope: Scope, status: int, cut_short: str, seconds: float) -> None:
        operation = operation_of(scope)
        self._service.metrics.count("other" if operation is None else operation.path, status, seconds)
        client = (scope.get("client") or ("-",))[0]
        logger.info(
            "%s %s %s %d%s %.1f ms", client, scope["method"], printable_path(scope), status, cut_short, 1000 * seconds
        )


def _status_at_end(scope: Scope) -> int:
    """Returns the status of a request whose connection ended before the whole response was sent; 0 if it did not."""
    status_at_end: Any = scope.get(ENDED)
    return status_at_end() if status_at_end is not None else 0


def printable_path(scope: Scope) -> str:
    """Returns a request's path for the log, without line breaks or control characters."""
    return one_line(scope["path"][:_MAX_SHOWN])


def is_client_gone(scope: Scope) -> bool:
    """Returns whether the client no longer waits for the response."""
    return _status_at_end(scope) != 0
