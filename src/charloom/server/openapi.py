"""The OpenAPI document, made of the types that requests are checked by."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from charloom import __version__
from charloom.server.schema import ProblemResponse


@dataclass(frozen=True)
class OperationDoc:
    """What the document says of an operation.

    Attributes:
        summary: what it does.
        response_type: the type of its answer; str for plain text, dict for any JSON object.
        request_type: the type of its request's body; None if it has none.
        streams: whether the answer may come as server-sent events.
    """

    summary: str
    response_type: type
    request_type: type | None = None
    streams: bool = False


_PROBLEMS = {
    400: "The request cannot be done as it is.",
    401: "The token is missing or wrong.",
    403: "The request comes by a name, or from a page, that is not allowed.",
    404: "There is no such model, or nothing at this path.",
    408: "It took too long.",
    413: "The body is too large.",
    415: "The body is no JSON.",
    429: "Too many texts are waiting.",
    431: "The head is too large.",
    500: "The server failed.",
    503: "The server is about to stop.",
}


def openapi(operations: Sequence[tuple[str, str, bool, OperationDoc]]) -> dict[str, Any]:
    """Returns the document of operations: of each its path, method, whether it needs no token, and its description."""
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
