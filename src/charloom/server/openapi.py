"""The OpenAPI document, made of the types that requests are checked by."""

from typing import Any

import msgspec

from charloom import __version__
from charloom.server.schema import (
    Completion,
    CompletionRequest,
    Health,
    ModelFacts,
    ModelList,
    NextRequest,
    NextResponse,
    ProblemResponse,
    ScoreRequest,
    ScoreResponse,
)

_POSTS = {
    "/v1/completions": ("Texts that go on from prompts.", CompletionRequest, Completion),
    "/v1/score": ("What texts cost a model.", ScoreRequest, ScoreResponse),
    "/v1/next": ("What a model expects next.", NextRequest, NextResponse),
}
_GETS = {
    "/v1/models": ("The models.", ModelList),
    "/v1/models/{name}": ("A model.", ModelFacts),
    "/health": ("Whether the server lives, and takes requests.", Health),
}
_PROBLEMS = {
    400: "The request cannot be done as it is.",
    401: "The token is missing or wrong.",
    403: "The request comes by a name, or from a page, that is not allowed.",
    404: "There is no such model, or nothing at this path.",
    408: "It took too long.",
    413: "The body is too large.",
    415: "The body is no JSON.",
    429: "Too many texts are waiting.",
    503: "The server is about to stop.",
}


def openapi() -> dict[str, Any]:
    """Returns the document."""
    types = [ProblemResponse, *(kind for _, *kinds in (*_POSTS.values(), *_GETS.values()) for kind in kinds)]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    schema_of = dict(zip(types, schemas, strict=True))

    def content(kind: Any, media_type: str = "application/json") -> dict[str, Any]:
        return {"content": {media_type: {"schema": schema_of[kind]}}}

    problems = {str(status): {"description": text, **content(ProblemResponse)} for status, text in _PROBLEMS.items()}
    paths: dict[str, Any] = {}
    for path, (summary, asked, answer) in _POSTS.items():
        answered = {"description": "Done.", **content(answer)}
        if answer is Completion:  # or as it is written
            answered["content"]["text/event-stream"] = {}
        paths[path] = {
            "post": {
                "summary": summary,
                "requestBody": {"required": True, **content(asked)},
                "responses": {"200": answered, **problems},
            }
        }
    for path, (summary, answer) in _GETS.items():
        paths[path] = {
            "get": {"summary": summary, "responses": {"200": {"description": "Done.", **content(answer)}, **problems}}
        }
    paths["/v1/models/{name}"]["get"]["parameters"] = [
        {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    ]
    paths["/metrics"] = {
        "get": {
            "summary": "Counters, for Prometheus.",
            "responses": {
                "200": {"description": "Done.", "content": {"text/plain": {"schema": {"type": "string"}}}},
                **problems,
            },
        }
    }
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
