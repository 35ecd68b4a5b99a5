"""Answers to what cannot be done, in the shape that OpenAI's clients read."""

from starlette.responses import Response

from charloom.server.schema import Problem, ProblemResponse, encoded

PROBLEM = "charloom.problem"
"""By this name a request's scope has the `ApiError` that ended a stream whose answer had begun with status 200."""

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """A request that is refused.

    Attributes:
        status: of the answer.
        param: which part of the request is meant.
        code: a word for programs.
        headers: more of the answer's.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.headers = headers

    @property
    def body(self) -> bytes:
        """The answer, as JSON."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        problem = Problem(message=str(self), type=kind, param=self.param, code=self.code)
        return encoded(ProblemResponse(error=problem))

    @property
    def response(self) -> Response:
        """The answer."""
        return Response(self.body, self.status, self.headers, "application/json")


def too_busy() -> ApiError:
    """Returns the refusal of what there is no room for now."""
    return ApiError(
        429, "Too many texts are waiting. Try again in a second.", code="queue_full", headers={"Retry-After": "1"}
    )


def too_late(message: str) -> ApiError:
    """Returns the answer to what took too long, and would again."""
    return ApiError(408, message, code="timeout", headers={"X-Should-Retry": "false"})


def stopping() -> ApiError:
    """Returns the answer to what the end of the server leaves undone."""
    return ApiError(503, "The server is stopping. Try again in a moment.", code="stopping")
