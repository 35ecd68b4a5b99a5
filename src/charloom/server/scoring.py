"""`POST /v1/score` and `POST /v1/next`: what texts cost a model, and what it expects next."""

import asyncio
import threading
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from charloom.errors import CharloomError
from charloom.inference import Cost, Score, Scorer, score_lines
from charloom.server.desk import Order
from charloom.server.engine import QueueFullError
from charloom.server.inbox import ClientGoneError, Inbox
from charloom.server.problems import ApiError, too_busy, too_late
from charloom.server.requests import body_of
from charloom.server.schema import (
    CharacterCosts,
    LineCost,
    NextCharacter,
    NextRequest,
    NextResponse,
    ScoreRequest,
    ScoreResponse,
    TextCost,
)
from charloom.server.served import ServedModel
from charloom.server.service import json_answer, prompt_ids, refused, require_few_numbers, require_fit, service_of
from charloom.server.tokens import token_names
from charloom.settings import SamplingSettings
from charloom.text import arriving_lines
from charloom.units import bits_from_nats, finite_or_none, perplexity_from_nats

_MOST_READ = 1_000_000
"""Characters that one request may have read: some twenty seconds of a large model's time."""


async def score(request: Request) -> Response:
    """Answers what texts cost."""
    service = service_of(request)
    asked = await body_of(request, ScoreRequest, service.limits)
    model = service.catalog.named(asked.model)
    require_fit(service, asked.prompt, "prompt")
    texts = [asked.input] if isinstance(asked.input, str) else asked.input
    require_fit(service, "".join(texts), "input")
    pieces = len(texts) + (sum(text.count("\n") for text in texts) if asked.per == "line" else 0)
    characters = sum(map(len, texts)) + pieces * len(asked.prompt)
    if characters > _MOST_READ:
        message = f"{characters:,} characters would be read, the prompt before each of {pieces:,} pieces: at most "
        raise ApiError(400, f"{message}{_MOST_READ:,} are. Ask for fewer at once.", param="prompt", code="too_much")
    if asked.per == "char":
        require_few_numbers(sum(map(len, texts)) * (1 + asked.guesses), "guesses")
    if service.scoring_queue >= service.limits.max_queue:
        raise too_busy()
    service.scoring_queue += 1
    is_given_up = threading.Event()
    future: Future[list[TextCost]] = service.scoring.submit(_costs, model, asked, texts, is_given_up)
    done = asyncio.ensure_future(asyncio.wrap_future(future))
    gone = asyncio.create_task(_gone(request))
    try:
        seconds = service.limits.timeout
        awaited: set[asyncio.Future[Any]] = {done, gone}
        finished, _ = await asyncio.wait(awaited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if not finished:
            raise too_late(f"The texts were not scored within {seconds:g} seconds.")
        if gone in finished:
            raise ClientGoneError
        return json_answer(ScoreResponse(model=model.name, data=done.result()))
    finally:
        is_given_up.set()
        gone.cancel()
        done.cancel()
        future.cancel()
        service.scoring_queue -= 1


async def _gone(request: Request) -> None:
    """Returns when the client goes away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _costs(model: ServedModel, asked: ScoreRequest, texts: list[str], is_given_up: threading.Event) -> list[TextCost]:
    try:
        scorer = model.model.scorer(asked.prompt, asked.unknown)
    except CharloomError as error:
        raise refused(error, "prompt") from None
    try:
        costs = []
        for index, text in enumerate(texts):
            if is_given_up.is_set():
                break
            costs.append(_cost(model, scorer, asked, index, text))
        return costs
    except CharloomError as error:
        raise refused(error, "input") from None


def _cost(model: ServedModel, scorer: Scorer, asked: ScoreRequest, index: int, text: str) -> TextCost:
    if asked.per == "line":
        batches = arriving_lines([text.encode()], "input", replace(model.model.text, encoding="utf-8"))
        lines = [line for batch in score_lines(scorer, batches) for line in batch]
        cost = sum((line.cost for line in lines), Cost())
        shown = [
            LineCost(
                line=line.number,
                characters=line.cost.characters,
                nats=finite_or_none(line.cost.nats),
                bits_per_char=finite_or_none(line.cost.bits_per_char),
                peak_bits=finite_or_none(line.cost.peak_bits),
                unknown=line.cost.unknown,
                text=line.shown,
            )
            for line in lines
        ]
        return _text_cost(index, cost, lines=shown)
    record = scorer.record(model.model.seen(text))
    found = scorer.begin(asked.guesses if asked.per == "char" else 0).read(record)[0]
    return _text_cost(index, Cost.of(found, record), chars=_characters(model, found) if asked.per == "char" else None)


def _text_cost(
    index: int, cost: Cost, lines: list[LineCost] | None = None, chars: CharacterCosts | None = None
) -> TextCost:
    return TextCost(
        index=index,
        characters=cost.characters,
        nats_per_char=finite_or_none(cost.nats_per_char),
        bits_per_char=finite_or_none(cost.bits_per_char),
        perplexity_per_char=finite_or_none(perplexity_from_nats(cost.nats_per_char)),
        unknown=cost.unknown,
        lines=lines,
        chars=chars,
    )


def _characters(model: ServedModel, found: Score) -> CharacterCosts:
    names = token_names(model.model.vocabulary)
    text = found.text
    characters = list(text) if isinstance(text, str) else [names[byte] for byte in text]
    guesses = None
    if found.guesses is not None:
        probs = np.exp(found.guesses.log_probs).tolist()
        guesses = [
            [(names[one], finite_or_none(prob)) for one, prob in zip(ids, likely, strict=True)]
            for ids, likely in zip(found.guesses.token_ids.tolist(), probs, strict=True)
        ]
    return CharacterCosts(
        characters=characters, bits=[finite_or_none(one) for one in found.bits.tolist()], guesses=guesses
    )


async def next_characters(request: Request) -> Response:
    """Answers what comes next."""
    service = service_of(request)
    asked = await body_of(request, NextRequest, service.limits)
    model = service.catalog.named(asked.model)
    inbox = Inbox(service.engine)
    order = Order(
        model=model,
        prompt=prompt_ids(service, model, asked.prompt, asked.unknown),
        length=0,
        settings=SamplingSettings(),
        seed=0,
        stream_index=0,
        deliver=inbox.put,
    )
    try:
        service.engine.submit([order])
    except QueueFullError:
        raise too_busy() from None
    async with inbox.served([order], request.receive, service):
        (delivery,) = await inbox.take()
    assert delivery.logits is not None  # nothing else was asked for
    logits = delivery.logits.astype(np.float64)
    probs = np.exp(logits - logits.max())
    probs /= probs.sum()
    likeliest = np.argsort(-probs, kind="stable")[: asked.top]
    names = token_names(model.model.vocabulary)
    surprises = bits_from_nats(float(-(probs * np.log(np.maximum(probs, 1e-300))).sum()))
    data = [NextCharacter(char=names[one], prob=finite_or_none(float(probs[one]))) for one in likeliest]
    return json_answer(NextResponse(model=model.name, entropy_bits=finite_or_none(surprises), data=data))
