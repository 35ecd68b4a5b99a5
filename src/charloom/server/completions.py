"""`POST /v1/completions`: texts that go on from prompts, at once or as they are written."""

import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from charloom.inference import Unfolding
from charloom.server.desk import Delivery, Order
from charloom.server.engine import QueueFullError
from charloom.server.inbox import Inbox
from charloom.server.problems import PROBLEM, ApiError, too_busy
from charloom.server.requests import body_of
from charloom.server.schema import Choice, Completion, CompletionRequest, Logprobs, Usage
from charloom.server.served import ServedModel
from charloom.server.service import Service, json_answer, prompt_ids, require_few_numbers, service_of
from charloom.server.tokens import PlacedDecoder, token_names
from charloom.settings import SamplingSettings
from charloom.units import finite_or_none

_DEFAULT_TOKENS = 16
_SMALLEST_TOP_P = 1e-9
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


async def completions(request: Request) -> Response:
    """Answers a request for texts."""
    arrived = time.perf_counter()
    service = service_of(request)
    asked = await body_of(request, CompletionRequest, service.limits)
    job = _Job.of(asked, service, arrived)
    if asked.stream:
        return _EventStream(job)
    found: list[list[Choice]] = [[] for _ in job.texts]
    async with aclosing(job.pieces(request.receive)) as coming:
        async for pieces in coming:
            for piece in pieces:
                found[piece.index].append(piece)
    whole = job.chunk([_joined(pieces) for pieces in found], job.usage)
    return json_answer(whole)


def _joined(pieces: list[Choice]) -> Choice:
    """Returns a text of its pieces."""
    last = pieces[-1]
    text = "".join(piece.text for piece in pieces)
    if last.logprobs is None:
        return msgspec.structs.replace(last, text=text)
    joined = Logprobs(tokens=[], token_logprobs=[], top_logprobs=[], text_offset=[])
    for piece in pieces:
        assert piece.logprobs is not None  # all pieces have them, or none
        joined.tokens += piece.logprobs.tokens
        joined.token_logprobs += piece.logprobs.token_logprobs
        joined.top_logprobs += piece.logprobs.top_logprobs
        joined.text_offset += piece.logprobs.text_offset
    return msgspec.structs.replace(last, text=text, logprobs=joined)


class _EventStream(Response):
    """An answer that is sent as it is written, in server-sent events; the first of them says that all is well."""

    def __init__(self, job: "_Job") -> None:
        super().__init__()
        self._job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_begun = False
        try:
            async with aclosing(self._job.pieces(receive)) as coming:
                async for pieces in coming:
                    if not is_begun:
                        is_begun = True
                        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
                    events = b"".join(_event(self._job.chunk([piece])) for piece in pieces)
                    await send({"type": "http.response.body", "body": events, "more_body": True})
        except ApiError as error:
            if not is_begun:
                raise
            scope[PROBLEM] = error
            await send({"type": "http.response.body", "body": b"data: " + error.body + b"\n\n"})
            return
        options = self._job.asked.stream_options
        usage = _event(self._job.chunk([], self._job.usage)) if options and options.include_usage else b""
        await send({"type": "http.response.body", "body": usage + b"data: [DONE]\n\n"})


def _event(chunk: Completion) -> bytes:
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


@dataclass(eq=False)
class _Text:
    """One of the texts, as far as it has come."""

    index: int
    order: Order
    decoder: PlacedDecoder
    unfolding: Unfolding
    lead: str
    likelihoods: "_Likelihoods | None" = None
    finish_reason: Literal["stop", "length"] | None = None
    characters: int = 0

    def add(self, delivery: Delivery) -> Choice | None:
        """Returns the piece of the text that a delivery completes; None where there is none yet."""
        if self.likelihoods is not None and delivery.nats is not None:
            self.likelihoods.add(delivery)
        if delivery.is_prompt or self.finish_reason is not None:
            return None
        piece = self.unfolding.add(delivery.token_ids)
        if delivery.is_last and self.unfolding.stopped is None:
            piece += self.unfolding.finish()
        if (reason := self.unfolding.stopped) is not None:
            self.finish_reason = "length" if reason == "length" else "stop"
            self.order.is_cancelled = True
        self.characters += len(piece)
        return self._piece(piece) if piece or self.finish_reason else None

    @property
    def written(self) -> int:
        """Tokens that the text has."""
        return self.order.length if self.finish_reason == "length" else self.decoder.tokens_of(self.characters)

    def _piece(self, piece: str) -> Choice:
        logprobs = None if self.likelihoods is None else self.likelihoods.up_to(self.written)
        text, self.lead = self.lead + piece, ""
        return Choice(text=text, index=self.index, logprobs=logprobs, finish_reason=self.finish_reason)


class _Likelihoods:
    """What the tokens of a text cost, until the text is given out that they are of.

    Args:
        names: of the tokens.
        decoder: of the text.
        prompt: what stands before the text, and its decoder; None where it is not given out.
    """

    def __init__(self, names: list[str], decoder: PlacedDecoder, prompt: tuple[str, PlacedDecoder] | None) -> None:
        self._names = names
        self._decoder = decoder
        self._prompt = prompt
        self._tokens: list[str] = []
        self._logprobs: list[float | None] = []
        self._top: list[dict[str, float | None]] = []
        self._given = self._before = 0

    def add(self, delivery: Delivery) -> None:
        assert delivery.nats is not None
        assert delivery.guesses is not None  # they come together
        rows = zip(delivery.guesses.token_ids.tolist(), delivery.guesses.log_probs.tolist(), strict=True)
        for token, nats, (ids, log_probs) in zip(
            delivery.token_ids.tolist(), delivery.nats.tolist(), rows, strict=True
        ):
            top = {self._names[one]: finite_or_none(value) for one, value in zip(ids, log_probs, strict=True)}
            if top:  # the one that came is among them, as OpenAI has it
                top.setdefault(self._names[token], finite_or_none(-nats))
            self._tokens.append(self._names[token])
            self._logprobs.append(finite_or_none(-nats))
            self._top.append(top)
        if delivery.is_prompt:
            self._before += len(delivery.token_ids)

    def up_to(self, written: int) -> Logprobs:
        """Returns those of the text's first tokens, and of the prompt before it, that are not yet out."""
        count = self._before + written - self._given
        places = []
        for at in range(self._given, self._given + count):
            if at < self._before:
                assert self._prompt is not None  # which is rated where it is given out
                places.append(self._prompt[1].place_of(at))
            else:
                lead = len(self._prompt[0]) if self._prompt is not None else 0
                places.append(lead + self._decoder.place_of(at - self._before))
        found = Logprobs(
            tokens=self._tokens[:count],
            token_logprobs=self._logprobs[:count],
            top_logprobs=self._top[:count],
            text_offset=places,
        )
        del self._tokens[:count], self._logprobs[:count], self._top[:count]
        self._given += count
        return found


class _Job:
    """A request on its way."""

    def __init__(
        self, service: Service, model: ServedModel, asked: CompletionRequest, seed: int, arrived: float
    ) -> None:
        self.asked = asked
        self.texts: list[_Text] = []
        self.seed = seed
        self._service = service
        self._model = model
        self._arrived = arrived
        self._prompt_tokens = 0
        self._id = f"cmpl-{secrets.token_hex(12)}"
        self._created = int(time.time())
        self._inbox = Inbox(service.engine)

    @classmethod
    def of(cls, asked: CompletionRequest, service: Service, arrived: float) -> "_Job":
        """Returns the job that a request asks for, with its orders given to the engine.

        Raises:
            ApiError: it asks for what cannot be done, or there is no room for it now.
        """
        limits, model = service.limits, service.catalog.named(asked.model)
        prompts = [asked.prompt or ""] if isinstance(asked.prompt, str | None) else asked.prompt
        count, length = asked.n or 1, _DEFAULT_TOKENS if asked.max_tokens is None else asked.max_tokens
        most_choices = min(limits.max_choices, limits.max_streams + limits.max_queue)
        if len(prompts) * count > most_choices:
            message = f"{len(prompts) * count:,} texts are asked for, and at most {most_choices:,} are written."
            raise ApiError(400, message, param="n", code="too_many_choices")
        if length > limits.max_tokens:
            message = f"max_tokens is {length:,}, and at most {limits.max_tokens:,} are written. Ask for fewer."
            raise ApiError(400, message, param="max_tokens", code="too_many_tokens")
        if (asked.best_of or count) != count:
            raise ApiError(
                400, "best_of is not known here. Leave it out, or give n.", param="best_of", code="unsupported"
            )
        is_prompt_rated = bool(asked.echo) and asked.logprobs is not None
        if is_prompt_rated and model.begin is None:
            message = "This model reads windows: it cannot rate the prompt itself. Leave echo or logprobs out."
            raise ApiError(400, message, param="logprobs", code="unsupported")
        if asked.logprobs is not None and not asked.stream:  # a stream waits for its reader
            rated = len(prompts) * count * length + (count * sum(map(len, prompts)) if is_prompt_rated else 0)
            require_few_numbers(rated * (1 + asked.logprobs), "logprobs")
        top_p = None if asked.top_p in (None, 1) else max(asked.top_p or 0, _SMALLEST_TOP_P)
        temperature = 1.0 if asked.temperature is None else asked.temperature
        settings = SamplingSettings(temperature=temperature, top_k=asked.top_k, top_p=top_p)
        stops = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
        # OpenAI's seeds have a sign; those of charloom are the numbers from 0 to 2**63 - 1.
        job = cls(
            service, model, asked, secrets.randbelow(2**32) if asked.seed is None else asked.seed % 2**63, arrived
        )
        vocabulary = model.model.vocabulary
        stops = [model.model.seen(stop) for stop in stops]
        names = token_names(vocabulary) if asked.logprobs is not None else []
        for prompt in prompts:
            ids = prompt_ids(service, model, prompt, asked.unknown)
            job._prompt_tokens += len(ids)
            lead = ""
            of_prompt: tuple[str, PlacedDecoder] | None = None
            if asked.echo:
                decoder = PlacedDecoder(vocabulary)
                lead = decoder(ids, final=True)
                of_prompt = lead, decoder
            for number in range(count):
                order = Order(
                    model=model,
                    prompt=ids,
                    length=length,
                    settings=settings,
                    seed=job.seed,
                    stream_index=number,
                    guesses=asked.logprobs,
                    with_prompt=is_prompt_rated,
                    deliver=job._inbox.put,
                )
                decoder = PlacedDecoder(vocabulary)
                unfolding = Unfolding(decoder, stops, vocabulary.end_id)
                likelihoods = None if asked.logprobs is None else _Likelihoods(names, decoder, of_prompt)
                job.texts.append(_Text(len(job.texts), order, decoder, unfolding, lead, likelihoods))
        try:
            service.engine.submit([text.order for text in job.texts])
        except QueueFullError:
            raise too_busy() from None
        service.metrics.prompt_characters.inc(job._prompt_tokens)
        return job

    async def pieces(self, receive: Receive) -> AsyncGenerator[list[Choice], None]:
        """Yields the texts' pieces, those together that came together, until all texts are done.

        Raises:
            ClientGoneError, ApiError: as of `Inbox.take`.
        """
        by_order = {text.order: text for text in self.texts}
        service, open_texts, is_first = self._service, len(self.texts), True
        async with self._inbox.served(list(by_order), receive, service):
            while open_texts:
                deliveries = await self._inbox.take()
                found = [by_order[one.order].add(one) for one in deliveries]
                pieces = [piece for piece in found if piece is not None]
                open_texts -= sum(piece.finish_reason is not None for piece in pieces)
                if is_first and pieces:
                    is_first = False
                    service.metrics.first_character_seconds.observe(time.perf_counter() - self._arrived)
                if pieces:
                    yield pieces

    @property
    def usage(self) -> Usage:
        """How much was read and written."""
        written = sum(text.written for text in self.texts)
        return Usage(
            prompt_tokens=self._prompt_tokens, completion_tokens=written, total_tokens=self._prompt_tokens + written
        )

    def chunk(self, choices: list[Choice], usage: Usage | None = None) -> Completion:
        """Returns what a stream's event has, or the whole."""
        return Completion(
            id=self._id, created=self._created, model=self._model.name, choices=choices, usage=usage, seed=self.seed
        )
