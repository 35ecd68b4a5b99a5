"""What every request passes first: who may ask, from where; and last: what is logged and counted of it.

A page on another site can send requests to this machine, and with a name of its own that resolves to this address
(DNS rebinding) even read the answers. So the Host is one that the server goes by, and an Origin, where a browser sends
one, is the same host or was allowed.
"""

import asyncio
import ipaddress
import logging
import secrets
import time
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from charloom.server.inbox import ClientGoneError
from charloom.server.problems import ApiError
from charloom.server.service import Service

logger = logging.getLogger("charloom.server")

_OPEN_PATHS = ("/", "/health", "/page.js", "/page.css", "/icon.svg")
"""What is answered without a token."""


class Guard:
    """An application around another.

    Args:
        app: the other.
        service: the server's parts.
        hosts: names that the server goes by, beside its addresses.
        origins: other sites whose pages may ask.
        paths: that are counted each for itself.
    """

    def __init__(
        self,
        app: ASGIApp,
        service: Service,
        hosts: Collection[str],
        origins: Collection[str],
        paths: Collection[str],
    ) -> None:
        self._paths = paths
        self._app = app
        self._service = service
        self._hosts = {host.lower() for host in hosts} | {"localhost"}
        self._origins = set(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, status = time.perf_counter(), 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            try:
                self._admit(Headers(scope=scope), scope)
                await self._app(scope, receive, noting)
            except ApiError as error:
                await error.response(scope, receive, noting)
            except ClientGoneError:
                status = status or 499
            except asyncio.CancelledError:
                status = status or 503
                raise
            except Exception:
                logger.exception("%s %s failed", scope["method"], _shown(scope))
                if status:  # half an answer is out: the connection is all that can be ended
                    raise
                await ApiError(500, "The server failed. Its log says why.").response(scope, receive, noting)
        finally:
            self._note(scope, status, time.perf_counter() - begin)

    def _admit(self, headers: Headers, scope: Scope) -> None:
        """Raises `ApiError` unless a request may go on."""
        host = headers.get("host", "")
        if not self._is_ours(host):
            message = f"This server does not go by the name {host[:200]!r}. Start it with --allow-host, if it should."
            raise ApiError(403, message, code="host")
        origin = headers.get("origin")
        if origin is not None and not (self._origins & {origin, "*"}) and _host_of(origin) != host.lower():
            message = f"Pages of {origin[:200]!r} may not ask here. Start the server with --cors, if they should."
            raise ApiError(403, message, code="origin")
        token = self._service.token
        if token is None or scope["path"] in _OPEN_PATHS or scope["method"] == "OPTIONS":
            return
        kind, _, given = headers.get("authorization", "").partition(" ")
        # The same time is taken for every token, so that none can be guessed by its beginning.
        if kind.lower() != "bearer" or not secrets.compare_digest(given.strip().encode(), token.encode()):
            raise ApiError(
                401,
                "Send the server's token, with the header Authorization: Bearer TOKEN.",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def _is_ours(self, host: str) -> bool:
        """Returns whether a Host is an address, which no one else's name resolves to, or a name of ours."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = next((one for one in self._paths if one == scope["path"]), "other")
        self._service.metrics.requests.labels(route, str(status)).inc()
        self._service.metrics.seconds.labels(route).observe(seconds)
        client = (scope.get("client") or ("-",))[0]
        logger.info("%s %s %s %d %.1f ms", client, scope["method"], _shown(scope), status, 1000 * seconds)


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _shown(scope: Scope) -> str:
    """Returns a path as it can be logged: nothing in it ends a line or steers a terminal."""
    return str(scope["path"][:200].encode("unicode_escape"), "ascii")
