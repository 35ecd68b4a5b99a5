"""The table of the server's operations, from which routes and the OpenAPI document are generated."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from charloom.server.completions import completions
from charloom.server.limits import Limits
from charloom.server.metrics import CONTENT_TYPE
from charloom.server.model_session import ModelSession
from charloom.server.openapi import OperationDoc, openapi
from charloom.server.schema import (
    Completion,
    CompletionRequest,
    Health,
    ModelCard,
    ModelList,
    NextRequest,
    NextResponse,
    ScoreRequest,
    ScoreResponse,
    encoded,
)
from charloom.server.scoring import next_characters, score
from charloom.server.service import json_response, service_of

Endpoint = Callable[[Request], Awaitable[Response]]

_PAGE = files("charloom.server") / "page"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, kw_only=True)
class Operation:
    """An operation of the server.

    Attributes:
        path: path of the URL.
        method: HTTP method.
        endpoint: the handler.
        doc: its documentation; None for the files of the page.
        is_open: whether it needs no token.
    """

    path: str
    method: Literal["GET", "POST"] = "GET"
    endpoint: Endpoint
    doc: OperationDoc | None = None
    is_open: bool = False

    @property
    def route(self) -> Route:
        """The operation's Starlette route."""
        return Route(self.path, self.endpoint, methods=[self.method])


def operation_of(scope: Scope) -> Operation | None:
    """Returns the operation at a request's path, whatever the method; None if there is none."""
    matches = ((operation, route.matches(scope)[0]) for operation, route in _ROUTES)
    return next((operation for operation, match in matches if match != Match.NONE), None)


def _page(name: str, kind: str) -> Endpoint:
    body = (_PAGE / name).read_bytes()
    headers = {
        "Content-Security-Policy": _POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }

    async def respond(request: Request) -> Response:
        return Response(body, 200, headers, kind)

    return respond


async def _models(request: Request) -> Response:
    service = service_of(request)
    return json_response(ModelList(data=[_model_card(model, service.limits) for model in service.registry.models]))


async def _model(request: Request) -> Response:
    service = service_of(request)
    return json_response(_model_card(service.registry.named(request.path_params["name"]), service.limits))


def _model_card(session: ModelSession, limits: Limits) -> ModelCard:
    model = session.model
    return ModelCard(
        id=session.name,
        created=session.created,
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
    return json_response(health, 200 if health.ready else 503)


async def _metrics(request: Request) -> Response:
    return Response(service_of(request).metrics.text(), headers={"Content-Type": CONTENT_TYPE})


async def _openapi(request: Request) -> Response:
    return Response(encoded(document()), media_type="application/json")


def document() -> dict[str, Any]:
    """Returns the OpenAPI document of all operations."""
    return openapi([(one.path, one.method, one.is_open, one.doc) for one in OPERATIONS if one.doc])


OPERATIONS = (
    Operation(path="/", endpoint=_page("index.html", "text/html; charset=utf-8"), is_open=True),
    Operation(path="/page.js", endpoint=_page("page.js", "text/javascript; charset=utf-8"), is_open=True),
    Operation(path="/page.css", endpoint=_page("page.css", "text/css; charset=utf-8"), is_open=True),
    Operation(path="/icon.svg", endpoint=_page("icon.svg", "image/svg+xml"), is_open=True),
    Operation(
        path="/v1/completions",
        method="POST",
        endpoint=completions,
        doc=OperationDoc("Generate texts that continue prompts.", Completion, CompletionRequest, streams=True),
    ),
    Operation(
        path="/v1/score",
        method="POST",
        endpoint=score,
        doc=OperationDoc("Score texts.", ScoreResponse, ScoreRequest),
    ),
    Operation(
        path="/v1/next",
        method="POST",
        endpoint=next_characters,
        doc=OperationDoc("Predict the next character.", NextResponse, NextRequest),
    ),
    Operation(path="/v1/models", endpoint=_models, doc=OperationDoc("List the models.", ModelList)),
    Operation(path="/v1/models/{name}", endpoint=_model, doc=OperationDoc("Describe a model.", ModelCard)),
    Operation(
        path="/health",
        endpoint=_health,
        doc=OperationDoc("Check whether the server is live and ready.", Health),
        is_open=True,
    ),
    Operation(path="/metrics", endpoint=_metrics, doc=OperationDoc("Get metrics in Prometheus's format.", str)),
    Operation(
        path="/openapi.json",
        endpoint=_openapi,
        doc=OperationDoc("Get this document.", dict),
        is_open=True,  # the page links to it, and a link carries no token
    ),
)
_ROUTES = [(operation, operation.route) for operation in OPERATIONS]
