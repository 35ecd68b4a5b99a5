"""The log-probabilities of a text's tokens: arrays until they are sent, then JSON in OpenAI's format."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from charloom.server.generation_request import TokenChunk
from charloom.server.schema import Logprobs
from charloom.server.slices import SLICE, Slices
from charloom.server.tokens import OffsetDecoder
from charloom.units import finite_or_none

BYTES_PER_NUMBER = 12
"""Bytes per log-probability and per top prediction: eight, and some more while arrays are joined."""

_Rows = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Token ids, their nats, and the ids and log-probabilities of the top predictions at their positions."""


class Likelihoods:
    """Collects the log-probabilities of a text's tokens, and of its prompt if they are requested.

    Args:
        names: the names of the tokens.
        top_predictions: number of top predictions per token in the response; 0 for none.
        decoder: the decoder of the text.
        prompt: the decoder of the prompt.
        prompt_length: length of the prompt in characters; offsets of the text are counted from there.
    """

    def __init__(
        self, names: list[str], top_predictions: int, decoder: OffsetDecoder, prompt: OffsetDecoder, prompt_length: int
    ) -> None:
        self._names = names
        self._top_predictions = top_predictions
        self._decoder = decoder
        self._prompt = prompt
        self._prompt_length = prompt_length
        self._pieces: list[_Rows] = []
        self._of_prompt = self._given = 0  # number of prompt tokens, and of tokens returned so far

    def add(self, chunk: TokenChunk) -> None:
        """Adds a chunk."""
        assert chunk.nats is not None
        assert chunk.top_predictions is not None  # set together with `nats`
        if chunk.is_prompt:
            self._of_prompt += len(chunk.token_ids)
        self._pieces.append((chunk.token_ids, chunk.nats, *chunk.top_predictions))
        # Each piece is longer than the next one, so there are few pieces and little is copied.
        while len(self._pieces) > 1 and len(self._pieces[-2][0]) <= len(self._pieces[-1][0]):
            last = self._pieces.pop()
            self._pieces[-1] = _joined(self._pieces[-1], last)

    def up_to(self, tokens: int) -> Logprobs:
        """Returns the log-probabilities of the prompt and the first `tokens` tokens that were not yet returned."""
        rows, count = self._all(), self._of_prompt + tokens - self._given
        taken, self._pieces = _cut(rows, 0, count), [_cut(rows, count, len(rows[0]))]
        first, self._given = self._given, self._given + count
        return Logprobs(
            tokens=self._tokens(taken, first),
            token_logprobs=self._token_logprobs(taken, first),
            top_logprobs=self._top_logprobs(taken, first) if self._top_predictions else None,
            text_offset=self._text_offset(taken, first),
        )

    def whole(self, tokens: int) -> dict[str, Any]:
        """Returns the log-probabilities of the prompt and the first `tokens` tokens, computed when they are sent."""
        rows, count = self._all(), self._of_prompt + tokens
        self._pieces = [rows]

        def column(make: Callable[[_Rows, int], list[Any]]) -> Slices:
            return Slices(self._made(make, rows, count))

        return {
            "tokens": column(self._tokens),
            "token_logprobs": column(self._token_logprobs),
            "top_logprobs": column(self._top_logprobs) if self._top_predictions else None,
            "text_offset": column(self._text_offset),
        }

    def _made(self, make: Callable[[_Rows, int], list[Any]], rows: _Rows, count: int) -> Iterator[list[Any]]:
        size = max(1, SLICE // (1 + self._top_predictions))
        for first in range(0, count, size):
            yield make(_cut(rows, first, min(count, first + size)), first)

    def _all(self) -> _Rows:
        return _joined(_no_rows(self._top_predictions), *self._pieces)

    def _tokens(self, rows: _Rows, first: int) -> list[str]:
        return [self._names[one] for one in rows[0].tolist()]

    def _token_logprobs(self, rows: _Rows, first: int) -> list[float | None]:
        found = [finite_or_none(-nats) for nats in rows[1].tolist()]
        if self._begins_at(first) and found:
            found[0] = None
        return found

    def _top_logprobs(self, rows: _Rows, first: int) -> list[dict[str, float | None] | None]:
        found: list[dict[str, float | None] | None] = []
        for token, nats, ids, log_probs in zip(*(array.tolist() for array in rows), strict=True):
            top = {self._names[one]: finite_or_none(value) for one, value in zip(ids, log_probs, strict=True)}
            top.setdefault(self._names[token], finite_or_none(-nats))  # as in OpenAI's responses
            found.append(top)
        if self._begins_at(first) and found:
            found[0] = None
        return found

    def _text_offset(self, rows: _Rows, first: int) -> list[int]:
        places = range(first, first + len(rows[0]))
        return [
            self._prompt.offset_of(at)
            if at < self._of_prompt
            else self._prompt_length + self._decoder.offset_of(at - self._of_prompt)
            for at in places
        ]

    def _begins_at(self, first: int) -> bool:
        """Returns whether a token is the first of a prompt, which has no log-probability in OpenAI's responses."""
        return first == 0 and self._of_prompt > 0


def _no_rows(top_predictions: int) -> _Rows:
    nothing = np.zeros((0, top_predictions), np.int32)
    return np.zeros(0, np.int32), np.zeros(0, np.float32), nothing, nothing.astype(np.float32)


def _joined(*pieces: _Rows) -> _Rows:
    ids, nats, guess_ids, log_probs = (np.concatenate(column) for column in zip(*pieces, strict=True))
    return ids, nats, guess_ids, log_probs


def _cut(rows: _Rows, begin: int, end: int) -> _Rows:
    ids, nats, guess_ids, log_probs = (array[begin:end] for array in rows)
    return ids, nats, guess_ids, log_probs
