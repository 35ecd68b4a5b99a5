"""What all answers of a server are made with."""

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from jaxtyping import Integer
from starlette.requests import Request
from starlette.responses import Response

from charloom.errors import CharloomError
from charloom.server.catalog import Catalog
from charloom.server.engine import Engine
from charloom.server.limits import Limits
from charloom.server.metrics import Metrics
from charloom.server.problems import ApiError, stopping
from charloom.server.schema import encoded
from charloom.server.served import ServedModel
from charloom.settings import UnknownPolicy

if TYPE_CHECKING:
    from charloom.server.inbox import Inbox

logger = logging.getLogger("charloom.server")

_MOST_NUMBERS = 1_000_000
"""In an answer with probabilities: some 20 MB of JSON."""


@dataclass(eq=False)
class Service:
    """A server's parts.

    Attributes:
        catalog: the models.
        engine: what reads and writes.
        limits: what is taken on.
        metrics: what is counted.
        token: that requests must carry; None for none.
        logs_prompts: whether texts of requests are logged.
        is_draining: whether the server is about to stop.
        scoring: the thread in which texts are scored.
        scoring_queue: how many wait for it.
        inboxes: of the requests that are served now.
    """

    catalog: Catalog
    engine: Engine
    limits: Limits
    metrics: Metrics
    token: str | None = None
    logs_prompts: bool = False
    is_draining: bool = False
    scoring: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "charloom scoring"))
    scoring_queue: int = 0
    inboxes: set["Inbox"] = field(default_factory=set)

    def note(self, client: str, status: int) -> None:
        """Logs and counts an answer to what was not a request that the application could see."""
        self.metrics.count("other", status)
        logger.info("%s - - %d", client, status)

    def end_all(self) -> None:
        """Ends what is served, where it has got to."""
        for inbox in self.inboxes:
            inbox.end(stopping())


def json_answer(answer: msgspec.Struct, status: int = 200) -> Response:
    """Returns an answer as JSON."""
    return Response(encoded(answer), status, media_type="application/json")


def service_of(request: Request) -> Service:
    """Returns the service that a request came to."""
    service: Service = request.app.state.service
    return service


def require_fit(service: Service, text: str, param: str) -> None:
    """Makes sure that a text is not too long; logs it, if that is wanted.

    Raises:
        ApiError: it is.
    """
    limits = service.limits
    if service.logs_prompts:
        logger.info("%s %r", param, text)
    if len(text) > limits.max_prompt:
        message = (
            f"{param} has {len(text):,} characters, and at most {limits.max_prompt:,} are taken. Send the last ones."
        )
        raise ApiError(400, message, param=param, code="prompt_too_long")


def require_few_numbers(numbers: int, param: str) -> None:
    """Makes sure that an answer does not hold more numbers than are sent at once.

    Raises:
        ApiError: it would.
    """
    if numbers > _MOST_NUMBERS:
        message = f"The answer would have {numbers:,} numbers, and at most {_MOST_NUMBERS:,} are sent. Ask for fewer."
        raise ApiError(400, message, param=param, code="answer_too_long")


def refused(error: CharloomError, param: str) -> ApiError:
    """Returns the answer to what a model cannot do with a request."""
    message = str(error).replace("Pass --unknown replace", 'Send "unknown": "replace" or "skip"')
    return ApiError(400, message, param=param, code="invalid_value")


def prompt_ids(
    service: Service, model: ServedModel, prompt: str, unknown: UnknownPolicy
) -> Integer[np.ndarray, " time"]:
    """Returns a prompt's tokens.

    Raises:
        ApiError: it is too long, or has what the model does not know.
    """
    require_fit(service, prompt, "prompt")
    try:
        return model.model.prompt_ids(prompt, unknown)[1]
    except CharloomError as error:
        raise refused(error, "prompt") from None
