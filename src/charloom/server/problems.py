"""Error responses in the format of OpenAI's API."""

from starlette.responses import Response

from charloom.server.schema import Problem, ProblemResponse, encoded

PROBLEM = "charloom.problem"
"""Key of a request's scope: the `ApiError` that ended a stream which had begun with status 200."""

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """An error response.

    Attributes:
        status: status code.
        param: the field of the request that caused it.
        code: an error code for programs.
        headers: additional headers.
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
        """The body of the response, as JSON."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        problem = Problem(message=str(self), type=kind, param=self.param, code=self.code)
        return encoded(ProblemResponse(error=problem))

    @property
    def response(self) -> Response:
        """The response."""
        return Response(self.body, self.status, self.headers, "application/json")


def too_busy() -> ApiError:
    """Returns the error for requests beyond the server's capacity."""
    return ApiError(
        429, "Too many texts are waiting. Try again in a second.", code="queue_full", headers={"Retry-After": "1"}
    )


def too_late(message: str) -> ApiError:
    """Returns the error for requests that took too long, and would again."""
    return ApiError(408, message, code="timeout", headers={"X-Should-Retry": "false"})


def stopping() -> ApiError:
    """Returns the error for requests that are unfinished when the server stops."""
    return ApiError(503, "The server is stopping. Try again in a moment.", code="stopping")
