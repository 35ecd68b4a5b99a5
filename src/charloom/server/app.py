"""The server as an ASGI application: its routes, and what they have in common."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from importlib.resources import files

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from charloom.server.completions import completions
from charloom.server.guard import Guard
from charloom.server.limits import Limits
from charloom.server.metrics import CONTENT_TYPE
from charloom.server.openapi import openapi
from charloom.server.problems import ApiError
from charloom.server.schema import Health, ModelFacts, ModelList
from charloom.server.scoring import next_characters, score
from charloom.server.served import ServedModel
from charloom.server.service import Service, json_answer, service_of

_PAGE = files("charloom.server") / "page"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SWITCH_SECONDS = 0.0005


def application(
    service: Service, *, hosts: Collection[str] = (), origins: Collection[str] = (), reloads: bool = False
) -> Starlette:
    """Returns the application.

    Args:
        service: the server's parts.
        hosts: names that the server goes by, beside its addresses and localhost.
        origins: other sites whose pages may ask.
        reloads: whether models are replaced when their files change.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        # The engine comes back from its products every few milliseconds, and would wait for this thread as long again.
        sys.setswitchinterval(_SWITCH_SECONDS)
        service.engine.start(asyncio.get_running_loop())
        watch = asyncio.create_task(service.catalog.watch()) if reloads else None
        yield
        if watch is not None:
            watch.cancel()
        await asyncio.to_thread(service.engine.stop)
        service.scoring.shutdown(wait=False, cancel_futures=True)

    sites = [origin.rstrip("/") for origin in origins]
    allowed = [Middleware(CORSMiddleware, allow_origins=sites, allow_methods=["*"], allow_headers=["*"])]
    routes = [
        Route("/", _page("index.html", "text/html; charset=utf-8")),
        Route("/page.js", _page("page.js", "text/javascript; charset=utf-8")),
        Route("/page.css", _page("page.css", "text/css; charset=utf-8")),
        Route("/icon.svg", _page("icon.svg", "image/svg+xml")),
        Route("/v1/completions", completions, methods=["POST"]),
        Route("/v1/score", score, methods=["POST"]),
        Route("/v1/next", next_characters, methods=["POST"]),
        Route("/v1/models", _models),
        Route("/v1/models/{name}", _model),
        Route("/health", _health),
        Route("/metrics", _metrics),
        Route("/openapi.json", _openapi),
    ]
    paths = [route.path for route in routes]
    app = Starlette(
        routes=routes,
        middleware=[
            *(allowed if sites else []),
            Middleware(Guard, service=service, hosts=hosts, origins=sites, paths=paths),
        ],
        exception_handlers={ApiError: _refusal, HTTPException: _http_refusal},
        lifespan=lifespan,
    )
    app.state.service = service
    service.metrics.observe(service)
    return app


def _page(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    body = (_PAGE / name).read_bytes()
    headers = {
        "Content-Security-Policy": _POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }

    async def answer(request: Request) -> Response:
        return Response(body, 200, headers, kind)

    return answer


async def _models(request: Request) -> Response:
    service = service_of(request)
    return json_answer(ModelList(data=[_facts(model, service.limits) for model in service.catalog.models]))


async def _model(request: Request) -> Response:
    service = service_of(request)
    return json_answer(_facts(service.catalog.named(request.path_params["name"]), service.limits))


def _facts(served: ServedModel, limits: Limits) -> ModelFacts:
    model = served.model
    return ModelFacts(
        id=served.name,
        created=served.created,
        owned_by="charloom",
        cell=model.settings.cell,
        layers=model.settings.layers,
        hidden=model.settings.hidden,
        parameters=model.network.parameters,
        units=model.vocabulary.units,
        vocabulary=model.vocabulary.characters if model.vocabulary.units == "chars" else None,
        is_of_records=model.vocabulary.record_end is not None,
        max_tokens=limits.max_tokens,
        max_prompt=limits.max_prompt,
    )


async def _health(request: Request) -> Response:
    service = service_of(request)
    health = Health(live=True, ready=service.engine.is_alive and not service.is_draining)
    return json_answer(health, 200 if health.ready else 503)


async def _metrics(request: Request) -> Response:
    return Response(service_of(request).metrics.text(), headers={"Content-Type": CONTENT_TYPE})


async def _openapi(request: Request) -> Response:
    return Response(msgspec.json.encode(openapi()), media_type="application/json")


async def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)  # it is registered for these
    return error.response


async def _http_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # it is registered for these
    what = {404: f"There is nothing at {request.url.path[:200]}.", 405: f"{request.method} is not for this path."}
    headers = dict(error.headers or {})
    return ApiError(error.status_code, what.get(error.status_code, error.detail), headers=headers).response
