"""`POST /v1/completions`: texts that continue prompts, as a whole or streamed."""

import secrets
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from jaxtyping import Integer
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from charloom.inference import StopDetector, TopPredictions
from charloom.server.generation_request import GenerationRequest, TokenChunk
from charloom.server.likelihoods import BYTES_PER_NUMBER, Likelihoods
from charloom.server.model_session import ModelSession
from charloom.server.problems import PROBLEM, ApiError
from charloom.server.requests import body_of
from charloom.server.response_queue import ResponseQueue
from charloom.server.schema import Choice, Completion, CompletionRequest, Usage, encoded
from charloom.server.service import Service, prompt_ids, require_few_numbers, service_of, text_of_ids
from charloom.server.slices import SLICE, Turn, send_json
from charloom.server.tokens import OffsetDecoder, token_names
from charloom.settings import SamplingSettings

_DEFAULT_TOKENS = 16
_SMALLEST_TOP_P = 1e-9
_DECODED_AT_ONCE = 512
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


async def completions(request: Request) -> Response:
    """Handles a completion request."""
    arrived = time.perf_counter()
    service = service_of(request)
    body = await body_of(request, CompletionRequest, service.limits)
    job = await _Job.of(body, service, arrived)
    return _EventStream(job) if body.stream else _WholeResponse(job)


class _WholeResponse(Response):
    """A response that is sent when all texts are complete."""

    def __init__(self, job: "_Job") -> None:
        super().__init__()
        self._job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        job = self._job
        found: list[list[str]] = [[] for _ in job.texts]
        async with aclosing(job.pieces(receive)) as coming:
            async for pieces in coming:
                for piece in pieces:
                    found[piece.index].append(piece.text)
                if all(text.finish_reason is not None for text in job.texts):
                    await send_json(await job.whole(found), send, job.responses.raise_if_ended)


class _EventStream(Response):
    """A response that is streamed as server-sent events. The first event also sends status 200."""

    def __init__(self, job: "_Job") -> None:
        super().__init__()
        self._job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_started = False
        try:
            async with aclosing(self._job.pieces(receive)) as coming:
                async for pieces in coming:
                    if not has_started:
                        has_started = True
                        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
                    events = b"".join(_event(self._job.chunk([piece])) for piece in pieces)
                    await send({"type": "http.response.body", "body": events, "more_body": True})
        except ApiError as error:
            if not has_started:
                raise
            scope[PROBLEM] = error
            await send({"type": "http.response.body", "body": b"data: " + error.body + b"\n\n"})
            return
        options = self._job.body.stream_options
        usage = _event(self._job.chunk([], self._job.usage)) if options and options.include_usage else b""
        await send({"type": "http.response.body", "body": usage + b"data: [DONE]\n\n"})


def _event(chunk: Completion) -> bytes:
    return b"data: " + encoded(chunk) + b"\n\n"


@dataclass(eq=False)
class _Text:
    """One of the requested texts, while it is generated."""

    index: int
    request: GenerationRequest
    decoder: OffsetDecoder
    stop_detector: StopDetector
    echo: str
    likelihoods: Likelihoods | None = None
    is_streamed: bool = False
    finish_reason: Literal["stop", "length"] | None = None
    characters: int = 0

    def add(self, chunk: TokenChunk) -> Choice | None:
        """Returns the piece of the text that a chunk completes; None if there is none yet.

        The piece of a streamed text includes its log-probabilities. For other texts they are kept for `whole`.
        """
        if self.finish_reason is not None:
            return None
        if self.likelihoods is not None and chunk.nats is not None:
            self.likelihoods.add(chunk)
        if chunk.is_prompt:
            return None
        piece = self.stop_detector.add(chunk.token_ids, "length" if chunk.is_last else None)
        if (reason := self.stop_detector.stopped) is not None:
            self.finish_reason = "length" if reason == "length" else "stop"
            self.request.is_cancelled = True
        self.characters += len(piece)
        if not piece and self.finish_reason is None:
            return None
        logprobs = None
        if self.likelihoods is not None and self.is_streamed:
            logprobs = self.likelihoods.up_to(self.generated)
        piece, self.echo = self.echo + piece, ""
        return Choice(text=piece, index=self.index, logprobs=logprobs, finish_reason=self.finish_reason)

    @property
    def generated(self) -> int:
        """Number of tokens of the text."""
        return self.request.length if self.finish_reason == "length" else self.decoder.token_count(self.characters)

    def whole(self, text: str) -> dict[str, Any]:
        """Returns the whole text as a choice of the response."""
        logprobs = None if self.likelihoods is None else self.likelihoods.whole(self.generated)
        choice = Choice(text=text, index=self.index, finish_reason=self.finish_reason)
        return {**msgspec.structs.asdict(choice), "logprobs": logprobs}


class _Prompt(NamedTuple):
    """An encoded prompt, its decoder and its text."""

    token_ids: Integer[np.ndarray, " time"]
    decoder: OffsetDecoder
    text: str


@dataclass(eq=False, kw_only=True)
class _Job:
    """A completion request in progress."""

    body: CompletionRequest
    service: Service
    model: ModelSession
    arrived: float
    seed: int
    responses: ResponseQueue
    texts: list[_Text] = field(default_factory=list)
    prompt_tokens: int = 0
    kept_bytes: int = 0
    id: str = field(default_factory=lambda: f"cmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    async def of(cls, body: CompletionRequest, service: Service, arrived: float) -> "_Job":
        """Returns the job for a request.

        Raises:
            ApiError: the request is invalid or exceeds a limit.
        """
        limits, model, turn = service.limits, service.registry.named(body.model), Turn()
        prompts = _prompts(body.prompt)
        count, length = body.n or 1, _DEFAULT_TOKENS if body.max_tokens is None else body.max_tokens
        max_choices = min(limits.max_choices, limits.max_streams + limits.max_queue)
        if len(prompts) * count > max_choices:
            requested = len(prompts) * count
            message = (
                f"prompt and n ask for {requested:,} texts, but at most {max_choices:,} are allowed. Ask for fewer."
            )
            raise ApiError(400, message, param="n", code="too_many_choices")
        if length > limits.max_tokens:
            message = f"max_tokens is {length:,}, but at most {limits.max_tokens:,} are allowed. Ask for fewer."
            raise ApiError(400, message, param="max_tokens", code="too_many_tokens")
        if (body.best_of or count) != count:
            raise ApiError(
                400, "best_of must equal n. Leave it out, or set it to n.", param="best_of", code="unsupported"
            )
        is_prompt_scored = bool(body.echo) and body.logprobs is not None
        if is_prompt_scored and model.start_state is None:
            message = "This model reads windows and cannot score the prompt. Leave out echo or logprobs."
            raise ApiError(400, message, param="logprobs", code="unsupported")
        # OpenAI's seeds can be negative; charloom's are 0 to 2**63 - 1.
        seed = secrets.randbelow(2**32) if body.seed is None else body.seed % 2**63
        job = cls(
            body=body,
            service=service,
            model=model,
            arrived=arrived,
            seed=seed,
            responses=ResponseQueue(service.engine),
        )
        await turn.end_if_over()
        await job._make_texts(prompts, count, length, is_prompt_scored, turn)
        if body.logprobs is not None and not body.stream:  # a stream waits for its reader
            scored = len(job.texts) * length + (count * job.prompt_tokens if is_prompt_scored else 0)
            require_few_numbers(scored * (1 + body.logprobs), "logprobs")
            job.kept_bytes = BYTES_PER_NUMBER * scored * (1 + body.logprobs)
        return job

    async def _make_texts(
        self, prompts: list[str] | list[list[int]], count: int, length: int, is_prompt_scored: bool, turn: Turn
    ) -> None:
        """Creates the texts, `count` for each prompt."""
        body, model = self.body, self.model.model
        top_p = None if body.top_p in (None, 1) else max(body.top_p or 0, _SMALLEST_TOP_P)
        temperature = 1.0 if body.temperature is None else body.temperature
        settings = SamplingSettings(temperature=temperature, top_k=body.top_k, top_p=top_p)
        stops = [model.normalize(stop) for stop in ([body.stop] if isinstance(body.stop, str) else body.stop or [])]
        names = token_names(model.vocabulary) if body.logprobs is not None else []
        for given in prompts:
            prompt = await self._encode_prompt(given, turn)
            for number in range(count):
                request = GenerationRequest(
                    model=self.model,
                    prompt=prompt.token_ids,
                    length=length,
                    settings=settings,
                    seed=self.seed,
                    stream_index=number,
                    top_predictions=body.logprobs,
                    with_prompt=is_prompt_scored,
                    on_chunk=self.responses.put,
                )
                decoder = OffsetDecoder(model.vocabulary)
                likelihoods = None
                if body.logprobs is not None:
                    likelihoods = Likelihoods(names, body.logprobs, decoder, prompt.decoder, len(prompt.text))
                stop_detector = StopDetector(decoder, stops, model.vocabulary.end_id)
                echo, is_streamed = prompt.text if body.echo else "", bool(body.stream)
                self.texts.append(
                    _Text(len(self.texts), request, decoder, stop_detector, echo, likelihoods, is_streamed)
                )
                await turn.end_if_over()

    async def _encode_prompt(self, given: str | list[int], turn: Turn) -> _Prompt:
        """Returns an encoded prompt, with its text if the response needs it."""
        if not isinstance(given, str):
            given = await text_of_ids(self.service, self.model.model.vocabulary, given, turn)
        token_ids = prompt_ids(self.service, self.model, given, self.body.unknown)
        self.prompt_tokens += len(token_ids)
        decoder, pieces = OffsetDecoder(self.model.model.vocabulary), []
        if self.body.echo or self.body.logprobs is not None:  # offsets are counted from the beginning of the prompt
            for first in range(0, len(token_ids), _DECODED_AT_ONCE):
                pieces.append(decoder(token_ids[first : first + _DECODED_AT_ONCE]))
                await turn.end_if_over()
            pieces.append(decoder(token_ids[:0], final=True))
        await turn.end_if_over()
        return _Prompt(token_ids, decoder, "".join(pieces))

    async def pieces(self, receive: Receive) -> AsyncGenerator[list[Choice], None]:
        """Generates the texts, and yields their pieces as they arrive, until all texts are complete.

        The memory for pieces that are kept is reserved until the caller has processed the last ones.

        Raises:
            ApiError: the server has no room for the request now.
            ClientGoneError, ApiError: as in `ResponseQueue.take`.
        """
        by_request = {text.request: text for text in self.texts}
        requests, open_texts, is_first, turn = list(by_request), len(self.texts), True, Turn()
        with self.service.answer_memory.reserved(self.kept_bytes) if self.kept_bytes else nullcontext():
            self.responses.submit(requests)
            self.service.metrics.prompt_characters.inc(self.prompt_tokens)
            async with self.responses.collecting(requests, receive, self.service):
                while open_texts:
                    ready: list[Choice] = []
                    for part in _small_chunks(await self.responses.take()):
                        text = by_request[part.request]
                        if (piece := text.add(part)) is not None:
                            ready.append(piece)
                            open_texts -= text.finish_reason is not None
                            if is_first:
                                is_first = False
                                seconds = time.perf_counter() - self.arrived
                                self.service.metrics.first_character_seconds.observe(seconds)
                        if turn.is_over and open_texts:
                            if ready:
                                yield ready
                                ready = []
                            await turn.next()
                    if ready:
                        yield ready

    @property
    def usage(self) -> Usage:
        """Numbers of tokens that were read and generated."""
        generated = sum(text.generated for text in self.texts)
        return Usage(
            prompt_tokens=self.prompt_tokens, completion_tokens=generated, total_tokens=self.prompt_tokens + generated
        )

    def chunk(self, choices: list[Choice], usage: Usage | None = None) -> Completion:
        """Returns the object of one event of a stream."""
        return Completion(
            id=self.id, created=self.created, model=self.model.name, choices=choices, usage=usage, seed=self.seed
        )

    async def whole(self, pieces: list[list[str]]) -> dict[str, Any]:
        """Returns the whole response for `send_json`, from the pieces of each text."""
        choices, turn = [], Turn()
        for text, text_pieces in zip(self.texts, pieces, strict=True):
            choices.append(text.whole("".join(text_pieces)))
            await turn.end_if_over()
        return {**msgspec.structs.asdict(self.chunk([], self.usage)), "choices": choices}


def _prompts(given: Any) -> list[str] | list[list[int]]:
    """Returns the prompts of a request: one text, several texts, one list of token ids, or several lists.

    Raises:
        ApiError: the prompts are of different kinds.
    """
    if given is None or isinstance(given, str):
        return [given or ""]
    kinds = set(map(type, given))
    if kinds == {int}:
        return [given]
    if len(kinds) == 1:
        return list(given)
    raise ApiError(
        400, "prompt mixes texts, token ids and lists of these. Send one kind.", param="prompt", code="invalid_value"
    )


def _small_chunks(chunks: list[TokenChunk]) -> Iterator[TokenChunk]:
    """Splits chunks into parts that are small enough to be processed at once."""
    for chunk in chunks:
        size = max(1, SLICE // (1 + (chunk.request.top_predictions or 0)))
        count = len(chunk.token_ids)
        if count <= size:
            yield chunk
            continue
        for first in range(0, count, size):
            part = slice(first, first + size)
            nats = None if chunk.nats is None else chunk.nats[part]
            top_predictions = (
                None
                if chunk.top_predictions is None
                else TopPredictions(*(array[part] for array in chunk.top_predictions))
            )
            is_last = chunk.is_last and first + size >= count
            yield chunk._replace(
                token_ids=chunk.token_ids[part], nats=nats, top_predictions=top_predictions, is_last=is_last
            )
