"""The parts of a server that its handlers share."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import numpy as np
from jaxtyping import Integer
from starlette.requests import Request
from starlette.responses import Response

from charloom.errors import CharloomError
from charloom.server.engine import Engine
from charloom.server.limits import Limits
from charloom.server.memory_budget import MemoryBudget
from charloom.server.metrics import Metrics
from charloom.server.model_registry import ModelRegistry
from charloom.server.model_session import ModelSession
from charloom.server.problems import ApiError, stopping
from charloom.server.response_queue import PendingRequest
from charloom.server.schema import encoded
from charloom.server.slices import SLICE, Turn
from charloom.server.worker import Worker
from charloom.settings import UnknownPolicy
from charloom.text import Vocabulary

logger = logging.getLogger("charloom.server")

_MAX_NUMBERS = 1_000_000
"""Maximum number of numbers in a response with probabilities: about 20 MB of JSON."""


@dataclass(eq=False)
class Service:
    """The parts of a server.

    Attributes:
        registry: the models.
        engine: generates texts.
        limits: the limits on requests.
        metrics: the metrics.
        token: the token that requests must carry; None if they need none.
        logs_prompts: whether the texts of requests are logged.
        is_draining: whether the server is stopping.
        scoring: the thread that scores texts.
        pending: requests in progress.
        answer_memory: memory for responses that are kept until they are complete.
        shut_down: stops the server.
        has_failed: whether the server stops because the engine has died.
    """

    registry: ModelRegistry
    engine: Engine
    limits: Limits
    metrics: Metrics
    token: str | None = None
    logs_prompts: bool = False
    is_draining: bool = False
    scoring: Worker = field(default_factory=lambda: Worker("charloom scoring"))
    pending: set[PendingRequest] = field(default_factory=set)
    shut_down: Callable[[], None] = lambda: None
    has_failed: bool = False
    answer_memory: MemoryBudget = field(init=False)

    def __post_init__(self) -> None:
        self.answer_memory = MemoryBudget(self.limits.answer_bytes)
        self.engine.on_death = self._on_engine_death

    def record(self, client: str, status: int) -> None:
        """Logs and counts a response to input that never reached the application."""
        self.metrics.count("other", status)
        logger.info("%s - - %d", client, status)

    def end_all(self) -> None:
        """Ends all requests in progress."""
        for one in self.pending:
            one.end(stopping())

    def _on_engine_death(self) -> None:
        """Stops the server, because no texts can be generated any more. A supervisor can start it again."""
        self.has_failed = self.is_draining = True
        self.end_all()
        self.shut_down()


def json_response(response: msgspec.Struct, status: int = 200) -> Response:
    """Returns a JSON response."""
    return Response(encoded(response), status, media_type="application/json")


def service_of(request: Request) -> Service:
    """Returns the service of a request."""
    service: Service = request.app.state.service
    return service


def require_fit(service: Service, text: str, param: str) -> None:
    """Makes sure that a text is not too long, and logs it if prompts are logged.

    Raises:
        ApiError: it is too long.
    """
    limits = service.limits
    if service.logs_prompts:
        logger.info("%s %r", param, text)
    if len(text) > limits.max_prompt:
        raise _too_long(param, len(text), "characters", limits.max_prompt)


def _too_long(param: str, length: int, units: str, limit: int) -> ApiError:
    message = f"{param} has {length:,} {units}, but at most {limit:,} are allowed. Send the last {limit:,}."
    return ApiError(400, message, param=param, code="prompt_too_long")


def require_few_numbers(numbers: int, param: str) -> None:
    """Makes sure that a response does not contain too many numbers.

    Raises:
        ApiError: it does.
    """
    if numbers > _MAX_NUMBERS:
        message = (
            f"The response would have {numbers:,} numbers, but at most {_MAX_NUMBERS:,} are allowed. Ask for fewer."
        )
        raise ApiError(400, message, param=param, code="answer_too_long")


def model_refusal(error: CharloomError, param: str) -> ApiError:
    """Returns the error response for a problem that the model reports."""
    message = str(error).replace("Pass --unknown replace", 'Send "unknown": "replace" or "skip"')
    return ApiError(400, message, param=param, code="invalid_value")


def prompt_ids(
    service: Service, model: ModelSession, prompt: str, unknown: UnknownPolicy
) -> Integer[np.ndarray, " time"]:
    """Returns the token ids of a prompt.

    Raises:
        ApiError: the prompt is too long, or has characters that the model does not know.
    """
    require_fit(service, prompt, "prompt")
    try:
        return model.model.prompt_ids(prompt, unknown)[1]
    except CharloomError as error:
        raise model_refusal(error, "prompt") from None


async def text_of_ids(service: Service, vocabulary: Vocabulary, ids: list[int], turn: Turn) -> str:
    """Returns the text of a prompt's token ids. `prompt_ids` converts it to the same ids.

    Raises:
        ApiError: there are too many ids, or the model does not have one of them.
    """
    if len(ids) > service.limits.max_prompt:
        raise _too_long("prompt", len(ids), "tokens", service.limits.max_prompt)
    pieces: list[str] = []
    for first in range(0, len(ids), SLICE):
        token_ids = np.array(ids[first : first + SLICE], np.int64)
        if (beyond := np.flatnonzero(token_ids >= vocabulary.size)).size:
            place = first + int(beyond[0])
            raise ApiError(
                400,
                f"prompt has the token id {ids[place]} at index {place}, but this model's ids are 0 to "
                f"{vocabulary.size - 1}.",
                param="prompt",
                code="invalid_value",
            )
        if vocabulary.units == "bytes":
            pieces.append(token_ids.astype(np.uint8).tobytes().decode("latin-1"))  # a character for each byte
        else:
            pieces.append("".join(map(vocabulary.characters.__getitem__, ids[first : first + SLICE])))
        await turn.end_if_over()
    text = "".join(pieces)
    return text.encode("latin-1").decode("utf-8", "surrogateescape") if vocabulary.units == "bytes" else text
