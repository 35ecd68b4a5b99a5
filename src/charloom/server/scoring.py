"""`POST /v1/score` and `POST /v1/next`: scores of texts, and predictions of the next character."""

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
from jaxtyping import Float32, Integer
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from charloom.errors import CharloomError
from charloom.inference import Cost, LineScore, Score, Scorer, score_lines
from charloom.server.generation_request import GenerationRequest
from charloom.server.likelihoods import BYTES_PER_NUMBER
from charloom.server.model_session import MAX_TOP_PREDICTIONS, ModelSession
from charloom.server.problems import ApiError, too_busy
from charloom.server.requests import body_of
from charloom.server.response_queue import PendingRequest, ResponseQueue
from charloom.server.schema import LineCost, NextCharacter, NextRequest, NextResponse, ScoreRequest, TextCost
from charloom.server.service import Service, model_refusal, prompt_ids, require_few_numbers, require_fit, service_of
from charloom.server.slices import send_json, sliced
from charloom.server.tokens import token_names
from charloom.server.worker import Task
from charloom.settings import SamplingSettings, TextSettings
from charloom.text import count_lines, iter_lines
from charloom.units import bits_from_nats, finite_or_none, perplexity_from_nats

_MAX_READ = 1_000_000
"""Maximum number of tokens that one request may read: about twenty seconds for a large model."""
_BYTES_PER_LINE = 1_000


async def score(request: Request) -> Response:
    """Handles a request to score texts."""
    service = service_of(request)
    body = await body_of(request, ScoreRequest, service.limits)
    model = service.registry.named(body.model)
    require_fit(service, body.prompt, "prompt")
    texts = [body.input] if isinstance(body.input, str) else body.input
    require_fit(service, "".join(texts), "input")
    pieces = sum(count_lines(text, _as_sent(model)) for text in texts) if body.per == "line" else len(texts)
    _require_few_tokens(model, texts, body.prompt, pieces)
    kept_bytes = _BYTES_PER_LINE * pieces
    if body.per == "char":
        numbers = _tokens_of(model, texts) * (1 + body.top_predictions)
        require_few_numbers(numbers, "top_predictions")
        kept_bytes += BYTES_PER_NUMBER * numbers
    if service.scoring.count >= service.limits.max_queue:
        raise too_busy()
    return _ScoreResponse(service, model, body, texts, kept_bytes)


def _require_few_tokens(model: ModelSession, texts: list[str], prompt: str, pieces: int) -> None:
    """Makes sure that a request does not read too many tokens, including the prompt before each piece.

    Raises:
        ApiError: it does.
    """
    before = _tokens_of(model, [prompt])
    tokens = _tokens_of(model, texts) + pieces * (1 + before)  # one for the end of the piece
    if tokens > _MAX_READ:
        units = "bytes" if model.model.vocabulary.units == "bytes" else "characters"
        message = (
            f"The request would read {tokens:,} {units}, {before:,} of the prompt before each of {pieces:,} pieces, "
            f"but at most {_MAX_READ:,} are allowed. Send less at once."
        )
        param = "prompt" if before else "input"
        raise ApiError(400, message, param=param, code="too_much")


def _tokens_of(model: ModelSession, texts: list[str]) -> int:
    """Returns the number of tokens of some texts, or an upper bound."""
    if model.model.vocabulary.units == "bytes":
        return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    return sum(map(len, texts))


def _as_sent(model: ModelSession) -> TextSettings:
    """Returns the text settings for the lines of a request, which are UTF-8 whatever the model was trained on."""
    return replace(model.model.text, encoding="utf-8")


class _ScoreResponse(Response):
    """A response with scores, which are computed when the worker thread reaches the request."""

    def __init__(
        self, service: Service, model: ModelSession, body: ScoreRequest, texts: list[str], kept_bytes: int
    ) -> None:
        super().__init__()
        self._service = service
        self._model = model
        self._body = body
        self._texts = texts
        self._kept_bytes = kept_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        service, pending = self._service, PendingRequest()
        task = Task(self._scores, pending.wake)
        with service.answer_memory.reserved(self._kept_bytes):
            service.scoring.submit(task)
            async with pending.watched(receive, service, lambda: service.scoring.cancel(task)):
                await pending.wait()
                if task.problem is not None:
                    raise task.problem
                data = (self._response(index, *scored) for index, scored in enumerate(task.result))
                response = {"object": "score", "model": self._model.name, "data": data}
                await send_json(response, send, pending.raise_if_ended)

    def _scores(self, task: Task) -> list[tuple[Cost, Score | list[LineCost] | None]]:
        """Returns the score of each text, and of its lines or characters if requested."""
        body = self._body
        try:
            scorer = self._model.model.scorer(body.prompt, body.unknown, task.check)
        except CharloomError as error:
            raise model_refusal(error, "prompt") from None
        try:
            if body.per == "line":
                return [self._lines(scorer, text) for text in self._texts]
            return [self._characters(scorer, text) for text in self._texts]
        except CharloomError as error:
            raise model_refusal(error, "input") from None

    def _lines(self, scorer: Scorer, text: str) -> tuple[Cost, list[LineCost]]:
        cost, lines = Cost(), []
        for batch in score_lines(scorer, iter_lines([text.encode()], "input", _as_sent(self._model))):
            for line in batch:
                cost += line.cost
                lines.append(_line_cost(line))
        return cost, lines

    def _characters(self, scorer: Scorer, text: str) -> tuple[Cost, Score | None]:
        body = self._body
        record = scorer.with_record_end(self._model.model.normalize(text))
        # Only one number of top predictions has been compiled: the largest that can be requested.
        found = scorer.begin(MAX_TOP_PREDICTIONS if body.top_predictions and body.per == "char" else 0).score(record)[0]
        return Cost.of(found, record), found if body.per == "char" else None

    def _response(self, index: int, cost: Cost, parts: Score | list[LineCost] | None) -> dict[str, Any]:
        """Returns the score of a text as `send_json` takes it."""
        of_text = TextCost(
            index=index,
            characters=cost.characters,
            nats_per_char=finite_or_none(cost.nats_per_char),
            bits_per_char=finite_or_none(cost.bits_per_char),
            perplexity_per_char=finite_or_none(perplexity_from_nats(cost.nats_per_char)),
            unknown=cost.unknown,
        )
        response = msgspec.structs.asdict(of_text)
        if isinstance(parts, Score):
            response["chars"] = self._chars(parts)
        elif parts is not None:
            response["lines"] = sliced(parts, lambda line: line)
        return response

    def _chars(self, found: Score) -> dict[str, Any]:
        names, text, count = token_names(self._model.model.vocabulary), found.text, self._body.top_predictions
        top_predictions = None
        if found.top_predictions is not None and count:
            rows = range(found.characters)
            ids, log_probs = (array[:, :count] for array in found.top_predictions)

            def pairs(at: int) -> list[tuple[str, float | None]]:
                probs = np.exp(log_probs[at]).tolist()
                return [(names[one], finite_or_none(prob)) for one, prob in zip(ids[at].tolist(), probs, strict=True)]

            top_predictions = sliced(rows, pairs, 1 + 4 * count)
        return {
            "characters": sliced(text, lambda one: one if isinstance(one, str) else names[one]),
            "bits": sliced(found.bits.tolist(), finite_or_none),
            "top_predictions": top_predictions,
        }


def _line_cost(line: LineScore) -> LineCost:
    return LineCost(
        line=line.number,
        characters=line.cost.characters,
        nats=finite_or_none(line.cost.nats),
        bits_per_char=finite_or_none(line.cost.bits_per_char),
        peak_bits=finite_or_none(line.cost.peak_bits),
        unknown=line.cost.unknown,
        text=line.shown,
    )


async def next_characters(request: Request) -> Response:
    """Handles a request to predict the next character."""
    service = service_of(request)
    body = await body_of(request, NextRequest, service.limits)
    model = service.registry.named(body.model)
    return _NextResponse(service, model, body, prompt_ids(service, model, body.prompt, body.unknown))


class _NextResponse(Response):
    """A response with the probabilities of the next character."""

    def __init__(
        self, service: Service, model: ModelSession, body: NextRequest, prompt: Integer[np.ndarray, " time"]
    ) -> None:
        super().__init__()
        self._service = service
        self._model = model
        self._body = body
        self._prompt = prompt

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        responses = ResponseQueue(self._service.engine)
        request = GenerationRequest(
            model=self._model,
            prompt=self._prompt,
            length=0,
            settings=SamplingSettings(),
            seed=0,
            stream_index=0,
            on_chunk=responses.put,
        )
        responses.submit([request])
        async with responses.collecting([request], receive, self._service):
            (chunk,) = await responses.take()
            assert chunk.logits is not None  # the request has length 0
            await send_json(self._response(chunk.logits), send, responses.raise_if_ended)

    def _response(self, logits: Float32[np.ndarray, " vocab"]) -> dict[str, Any]:
        probs = np.exp(logits.astype(np.float64) - logits.max())
        probs /= probs.sum()
        surprises = bits_from_nats(float(-(probs * np.log(np.maximum(probs, 1e-300))).sum()))
        names = token_names(self._model.model.vocabulary)
        likeliest = np.argsort(-probs, kind="stable")[: self._body.top].tolist()
        response = NextResponse(model=self._model.name, entropy_bits=finite_or_none(surprises), data=[])
        data = sliced(likeliest, lambda one: NextCharacter(char=names[one], prob=finite_or_none(float(probs[one]))))
        return {**msgspec.structs.asdict(response), "data": data}
