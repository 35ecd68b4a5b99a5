"""The OpenAPI document, generated from the types that validate requests."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from charloom import __version__
from charloom.server.schema import ProblemResponse


@dataclass(frozen=True)
class OperationDoc:
    """The documentation of an operation.

    Attributes:
        summary: what the operation does.
        response_type: type of the response; str for plain text, dict for any JSON object.
        request_type: type of the request's body; None if it has none.
        streams: whether the response can be server-sent events.
    """

    summary: str
    response_type: type
    request_type: type | None = None
    streams: bool = False


_PROBLEMS = {
    400: "The request is invalid.",
    401: "The token is missing or wrong.",
    403: "The Host or the Origin is not allowed.",
    404: "The model or the path does not exist.",
    408: "The request took too long.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    429: "Too many texts are waiting.",
    431: "The request's head is too large.",
    500: "The server failed.",
    503: "The server is stopping.",
}


def openapi(operations: Sequence[tuple[str, str, bool, OperationDoc]]) -> dict[str, Any]:
    """Returns the OpenAPI document of operations, given as path, method, whether no token is needed, and their docs."""
    kinds = [kind for *_, doc in operations for kind in (doc.request_type, doc.response_type) if kind is not None]
    types = [ProblemResponse, *dict.fromkeys(kinds)]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    schema_of = dict(zip(types, schemas, strict=True))

    def content(kind: type) -> dict[str, Any]:
        media_type = "text/plain" if kind is str else "application/json"
        return {"content": {media_type: {"schema": schema_of[kind]}}}

    problems = {str(status): {"description": text, **content(ProblemResponse)} for status, text in _PROBLEMS.items()}
    paths: dict[str, Any] = {}
    for path, method, is_open, doc in operations:
        answered = {"description": "Done.", **content(doc.response_type)}
        if doc.streams:
            answered["content"]["text/event-stream"] = {}
        entry: dict[str, Any] = {"summary": doc.summary, "responses": {"200": answered, **problems}}
        if doc.request_type is not None:
            entry["requestBody"] = {"required": True, **content(doc.request_type)}
        if is_open:
            entry["security"] = []
        names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
        if names:
            schema = {"type": "string", "minLength": 1}
            entry["parameters"] = [{"name": name, "in": "path", "required": True, "schema": schema} for name in names]
        paths.setdefault(path, {})[method.lower()] = entry
    return {
        "openapi": "3.1.0",
        "info": {"title": "charloom", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }
