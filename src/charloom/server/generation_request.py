"""A request for one generated text, and the chunks of tokens that the engine returns for it."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, Integer

from charloom.inference import TopPredictions
from charloom.server.model_session import ModelSession
from charloom.settings import SamplingSettings

logger = logging.getLogger("charloom.server")


@dataclass(eq=False, kw_only=True)
class GenerationRequest:
    """A request for one text.

    Attributes:
        model: the model that generates it.
        prompt: the token ids of the prompt.
        length: number of tokens to generate; 0 returns only the logits after the prompt.
        settings: the sampling settings.
        seed: seed of the sampler.
        stream_index: distinguishes texts with the same seed.
        top_predictions: number of top predictions per token; None if no log-probabilities are requested.
        with_prompt: whether the log-probabilities of the prompt are requested, too.
        on_chunk: called with each chunk, in the event loop.
        is_cancelled: whether the result is no longer needed; set from any thread.
        is_paused: whether the reader is so far behind that generation should wait; set from any thread.
    """

    model: ModelSession
    prompt: Integer[np.ndarray, " time"]
    length: int
    settings: SamplingSettings
    seed: int
    stream_index: int
    top_predictions: int | None = None
    with_prompt: bool = False
    on_chunk: "Callable[[TokenChunk], None]" = field(repr=False)
    is_cancelled: bool = False
    is_paused: bool = False


class TokenChunk(NamedTuple):
    """The next tokens of a text.

    Attributes:
        request: the request that they belong to.
        token_ids: their ids.
        is_prompt: whether they are tokens of the prompt.
        nats: negative log-probability of each token, if requested.
        top_predictions: the most likely tokens at each position, if requested.
        logits: the logits after the prompt, if nothing is to be generated.
        is_last: whether this is the last chunk.
        problem: why the text ended early.
    """

    request: GenerationRequest
    token_ids: Integer[np.ndarray, " time"]
    is_prompt: bool = False
    nats: Float32[np.ndarray, " time"] | None = None
    top_predictions: TopPredictions | None = None
    logits: Float32[np.ndarray, " vocab"] | None = None
    is_last: bool = False
    problem: Exception | None = None


def failed_chunk(request: GenerationRequest, problem: Exception) -> TokenChunk:
    """Returns the last chunk of a text that cannot be continued, and logs why."""
    logger.error("cannot continue a text", exc_info=problem)
    return TokenChunk(request, request.prompt[:0], is_last=True, problem=problem)


def scored_chunk(
    request: GenerationRequest,
    token_ids: Integer[np.ndarray, " time"],
    logits: Sequence[Float32[np.ndarray, " vocab"]],
    is_prompt: bool = False,
) -> TokenChunk:
    """Returns a chunk with the log-probabilities of its tokens, from the logits at each position."""
    assert request.top_predictions is not None  # callers have checked it
    count = request.top_predictions
    table = np.array(logits, np.float32).reshape(len(logits), -1)
    table -= table.max(axis=1, keepdims=True, initial=-np.inf)
    table -= np.log(np.exp(table).sum(axis=1, keepdims=True))
    ids = _most_likely(table, count)
    nats = -np.take_along_axis(table, token_ids[:, None].astype(np.int64), axis=1)[:, 0]
    return TokenChunk(request, token_ids, is_prompt, nats, TopPredictions(ids, np.take_along_axis(table, ids, axis=1)))


def _most_likely(table: Float32[np.ndarray, "time vocab"], count: int) -> Int32[np.ndarray, "time count"]:
    """Returns the `count` tokens with the highest values in each row, in descending order; equal ones by id."""
    if count == 0:
        return np.zeros((len(table), 0), np.int32)
    return np.argsort(-table, axis=1, kind="stable")[:, :count].astype(np.int32)
