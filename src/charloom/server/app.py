"""The server as an ASGI application."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

from charloom.server.access import AccessLog
from charloom.server.guard import Guard
from charloom.server.problems import ApiError
from charloom.server.routes import OPERATIONS
from charloom.server.service import Service
from charloom.server.threads import in_thread

_STOP_SECONDS = 2.0


def application(
    service: Service, *, hosts: Collection[str] = (), origins: Collection[str] = (), reloads: bool = False
) -> Starlette:
    """Returns the application.

    Args:
        service: the server's parts.
        hosts: host names of the server, in addition to its addresses and localhost.
        origins: other sites whose pages may send requests.
        reloads: whether models are replaced when their files change.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.engine.start(asyncio.get_running_loop())
        watch = asyncio.create_task(service.registry.watch()) if reloads else None
        yield
        if watch is not None:
            watch.cancel()
        with contextlib.suppress(TimeoutError):  # it may be in a long computation
            await asyncio.wait_for(in_thread(service.engine.stop), _STOP_SECONDS)
        await in_thread(service.scoring.stop)

    sites = [origin.rstrip("/") for origin in origins]
    allowed = [Middleware(_Cors, allow_origins=sites, allow_methods=["*"], allow_headers=["*"])]
    app = Starlette(
        routes=[operation.route for operation in OPERATIONS],
        middleware=[
            Middleware(AccessLog, service=service),
            *(allowed if sites else []),
            Middleware(Guard, service=service, hosts=hosts, origins=sites),
        ],
        exception_handlers={ApiError: _refusal, HTTPException: _http_refusal},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.service = service
    service.metrics.observe(service)
    return app


class _Cors(CORSMiddleware):
    """Starlette's CORS responses, with refusals in the format of the API."""

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code == 200:
            return response
        return ApiError(403, str(response.body, "utf-8"), code="origin").response


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)  # the handler is registered for it
    return error.response


async def _http_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # the handler is registered for it
    what = {
        404: f"Nothing is at {request.url.path[:200]}.",
        405: f"{request.url.path[:200]} does not take {request.method}.",
    }
    headers = dict(error.headers or {})
    return ApiError(error.status_code, what.get(error.status_code, error.detail), headers=headers).response
