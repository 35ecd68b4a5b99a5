"""Checks every request before it is handled, and turns every error into a response.

A page on another site can send requests to this machine. With a host name that resolves to this address (DNS rebinding)
it could even read the responses.
So the Host must be one of the server's names, and an Origin must be the same host or an allowed site.
"""

import asyncio
import ipaddress
import logging
import secrets
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from charloom.errors import SettingError
from charloom.server.access import is_client_gone, printable_path
from charloom.server.problems import PROBLEM, ApiError, stopping, too_late
from charloom.server.response_queue import ClientGoneError
from charloom.server.routes import operation_of
from charloom.server.service import Service

logger = logging.getLogger("charloom.server")


class Guard:
    """Middleware that checks requests and handles errors.

    Args:
        app: the wrapped application.
        service: the server's parts.
        hosts: host names of the server, in addition to its addresses.
        origins: other sites whose pages may send requests.
    """

    def __init__(self, app: ASGIApp, service: Service, hosts: Collection[str], origins: Collection[str]) -> None:
        self._app = app
        self._service = service
        self._hosts = {host.lower() for host in hosts} | {"localhost"}
        self._origins = set(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_started = False

        async def observed_send(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            self._admit(Headers(scope=scope), scope)
            await self._app(scope, receive, observed_send)
        except ApiError as error:
            await error.response(scope, receive, send)
        except ClientGoneError:
            return
        except asyncio.CancelledError:  # the server stops, or the request timed out
            problem = stopping() if self._service.is_draining else too_late("The response was not ready in time.")
            if has_started:  # a part has been sent: only the connection can be ended
                scope[PROBLEM] = problem
                raise
            await problem.response(scope, receive, send)
        except Exception:
            if is_client_gone(scope):  # the response could not be sent
                return
            logger.exception("%s %s failed", scope["method"], printable_path(scope))
            if has_started:
                raise
            await ApiError(500, "The server failed. See its log for the reason.").response(scope, receive, send)

    def _admit(self, headers: Headers, scope: Scope) -> None:
        """Raises `ApiError` if a request is not allowed."""
        host = headers.get("host", "")
        if not self._is_known_host(host):
            message = f"This server is not named {host[:200]!r}. If it should be, start it with --allow-host."
            raise ApiError(403, message, code="host")
        origin = headers.get("origin")
        if origin is not None and not (self._origins & {origin, "*"}) and _host_of(origin) != host.lower():
            message = (
                f"Pages of {origin[:200]!r} may not send requests here. To allow it, start the server with --cors."
            )
            raise ApiError(403, message, code="origin")
        token = self._service.token
        operation = operation_of(scope)
        if token is None or scope["method"] == "OPTIONS" or (operation is not None and operation.is_open):
            return
        kind, _, given = headers.get("authorization", "").partition(" ")
        # The comparison takes the same time for every token, so a token cannot be guessed character by character.
        if kind.lower() != "bearer" or not secrets.compare_digest(given.strip().encode(), token.encode()):
            raise ApiError(
                401,
                "Send the server's token, with the header Authorization: Bearer TOKEN.",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def _is_known_host(self, host: str) -> bool:
        """Returns whether a Host is one of the server's names, or an address, which DNS rebinding cannot use."""
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


def require_token(name: str, token: str) -> None:
    """Raises `SettingError` unless a header can carry the token.

    An empty token would allow every request, and other invalid ones would refuse every request.
    """
    if not token:
        raise SettingError(name, "is empty. Set the token that requests must carry, or unset it to allow all requests")
    if not token.isascii() or not token.isprintable() or token != token.strip():
        raise SettingError(
            name, "must be a token that a header can carry: ASCII, no control characters, no outer spaces"
        )


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None
