"""`POST /v1/score` and `POST /v1/next`: what texts cost a model, and what it expects next."""

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
from charloom.server.batch_scheduler import GenerationRequest
from charloom.server.likelihoods import BYTES_A_NUMBER
from charloom.server.model_session import MOST_TOP_PREDICTIONS, ModelSession
from charloom.server.problems import ApiError, too_busy
from charloom.server.requests import body_of
from charloom.server.response_queue import ResponseQueue, Waiting
from charloom.server.schema import LineCost, NextCharacter, NextRequest, NextResponse, ScoreRequest, TextCost
from charloom.server.service import Service, prompt_ids, refused, require_few_numbers, require_fit, service_of
from charloom.server.slices import send_json, sliced
from charloom.server.tokens import token_names
from charloom.server.worker import Task
from charloom.settings import SamplingSettings, TextSettings
from charloom.text import count_lines, iter_lines
from charloom.units import bits_from_nats, finite_or_none, perplexity_from_nats

_MOST_READ = 1_000_000
"""Tokens that one request may have read: some twenty seconds of a large model's time."""
_BYTES_A_LINE = 1_000


async def score(request: Request) -> Response:
    """Answers what texts cost."""
    service = service_of(request)
    asked = await body_of(request, ScoreRequest, service.limits)
    model = service.registry.named(asked.model)
    require_fit(service, asked.prompt, "prompt")
    texts = [asked.input] if isinstance(asked.input, str) else asked.input
    require_fit(service, "".join(texts), "input")
    pieces = sum(count_lines(text, _as_sent(model)) for text in texts) if asked.per == "line" else len(texts)
    _require_few_read(model, texts, asked.prompt, pieces)
    kept_bytes = _BYTES_A_LINE * pieces
    if asked.per == "char":
        numbers = _tokens_of(model, texts) * (1 + asked.top_predictions)
        require_few_numbers(numbers, "top_predictions")
        kept_bytes += BYTES_A_NUMBER * numbers
    if service.scoring.count >= service.limits.max_queue:
        raise too_busy()
    return _Scored(service, model, asked, texts, kept_bytes)


def _require_few_read(model: ModelSession, texts: list[str], prompt: str, pieces: int) -> None:
    """Makes sure that what is read, the prompt again before each piece, does not take for ever.

    Raises:
        ApiError: it would.
    """
    before = _tokens_of(model, [prompt])
    tokens = _tokens_of(model, texts) + pieces * (1 + before)  # the one is a piece's end
    if tokens > _MOST_READ:
        units = "bytes" if model.model.vocabulary.units == "bytes" else "characters"
        message = (
            f"{tokens:,} {units} would be read, {before:,} of the prompt before each of {pieces:,} pieces, and at most "
            f"{_MOST_READ:,} are. Ask for fewer at once."
        )
        param = "prompt" if before else "input"
        raise ApiError(400, message, param=param, code="too_much")


def _tokens_of(model: ModelSession, texts: list[str]) -> int:
    """Returns how many tokens texts are, at most."""
    if model.model.vocabulary.units == "bytes":
        return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    return sum(map(len, texts))


def _as_sent(model: ModelSession) -> TextSettings:
    """Returns how the lines of a request are read: in UTF-8, whatever the model was trained on."""
    return replace(model.model.text, encoding="utf-8")


class _Scored(Response):
    """An answer of what texts cost, which are scored when it is their turn."""

    def __init__(
        self, service: Service, model: ModelSession, asked: ScoreRequest, texts: list[str], kept_bytes: int
    ) -> None:
        super().__init__()
        self._service = service
        self._model = model
        self._asked = asked
        self._texts = texts
        self._kept_bytes = kept_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        service, waiting = self._service, Waiting()
        task = Task(self._scores, waiting.wake)
        with service.room.taken(self._kept_bytes):
            service.scoring.submit(task)
            async with waiting.served(receive, service, lambda: service.scoring.give_up(task)):
                await waiting.news()
                if task.problem is not None:
                    raise task.problem
                data = (self._answer(index, *scored) for index, scored in enumerate(task.result))
                answer = {"object": "score", "model": self._model.name, "data": data}
                await send_json(answer, send, waiting.require_wanted)

    def _scores(self, task: Task) -> list[tuple[Cost, Score | list[LineCost] | None]]:
        """Returns what each text cost, and its lines or characters, where they are wanted."""
        asked = self._asked
        try:
            scorer = self._model.model.scorer(asked.prompt, asked.unknown, task.check)
        except CharloomError as error:
            raise refused(error, "prompt") from None
        try:
            if asked.per == "line":
                return [self._lines(scorer, text) for text in self._texts]
            return [self._characters(scorer, text) for text in self._texts]
        except CharloomError as error:
            raise refused(error, "input") from None

    def _lines(self, scorer: Scorer, text: str) -> tuple[Cost, list[LineCost]]:
        cost, lines = Cost(), []
        for batch in score_lines(scorer, iter_lines([text.encode()], "input", _as_sent(self._model))):
            for line in batch:
                cost += line.cost
                lines.append(_line_cost(line))
        return cost, lines

    def _characters(self, scorer: Scorer, text: str) -> tuple[Cost, Score | None]:
        asked = self._asked
        record = scorer.record(self._model.model.normalize(text))
        # One count of top predictions has been compiled: the most that can be asked for.
        found = scorer.begin(MOST_TOP_PREDICTIONS if asked.top_predictions and asked.per == "char" else 0).read(record)[
            0
        ]
        return Cost.of(found, record), found if asked.per == "char" else None

    def _answer(self, index: int, cost: Cost, parts: Score | list[LineCost] | None) -> dict[str, Any]:
        """Returns what a text cost, as `send_json` takes it."""
        of_text = TextCost(
            index=index,
            characters=cost.characters,
            nats_per_char=finite_or_none(cost.nats_per_char),
            bits_per_char=finite_or_none(cost.bits_per_char),
            perplexity_per_char=finite_or_none(perplexity_from_nats(cost.nats_per_char)),
            unknown=cost.unknown,
        )
        answer = msgspec.structs.asdict(of_text)
        if isinstance(parts, Score):
            answer["chars"] = self._chars(parts)
        elif parts is not None:
            answer["lines"] = sliced(parts, lambda line: line)
        return answer

    def _chars(self, found: Score) -> dict[str, Any]:
        names, text, count = token_names(self._model.model.vocabulary), found.text, self._asked.top_predictions
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
    """Answers what comes next."""
    service = service_of(request)
    asked = await body_of(request, NextRequest, service.limits)
    model = service.registry.named(asked.model)
    return _Expected(service, model, asked, prompt_ids(service, model, asked.prompt, asked.unknown))


class _Expected(Response):
    """An answer of what comes next."""

    def __init__(
        self, service: Service, model: ModelSession, asked: NextRequest, prompt: Integer[np.ndarray, " time"]
    ) -> None:
        super().__init__()
        self._service = service
        self._model = model
        self._asked = asked
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
            deliver=responses.put,
        )
        responses.submit([request])
        async with responses.serving([request], receive, self._service):
            (chunk,) = await responses.take()
            assert chunk.logits is not None  # nothing else was asked for
            await send_json(self._answer(chunk.logits), send, responses.require_wanted)

    def _answer(self, logits: Float32[np.ndarray, " vocab"]) -> dict[str, Any]:
        probs = np.exp(logits.astype(np.float64) - logits.max())
        probs /= probs.sum()
        surprises = bits_from_nats(float(-(probs * np.log(np.maximum(probs, 1e-300))).sum()))
        names = token_names(self._model.model.vocabulary)
        likeliest = np.argsort(-probs, kind="stable")[: self._asked.top].tolist()
        answer = NextResponse(model=self._model.name, entropy_bits=finite_or_none(surprises), data=[])
        data = sliced(likeliest, lambda one: NextCharacter(char=names[one], prob=finite_or_none(float(probs[one]))))
        return {**msgspec.structs.asdict(answer), "data": data}
