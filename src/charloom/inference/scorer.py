"""Scores texts character by character: many texts in parallel, or one text piece by piece."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Integer

from charloom.data import Packing
from charloom.errors import UnknownCharacterError
from charloom.inference.scores import Score, TopPredictions
from charloom.inference.token_scorer import (
    BATCH_SIZE,
    BATCH_STEP_COST,
    CAPACITIES,
    BlockShape,
    TokenScorer,
    score_block,
)
from charloom.models import Network
from charloom.settings import TextSettings, UnknownPolicy
from charloom.text import Line, Vocabulary, one_record

_MAX_PACKED = 1 << 20
"""Maximum number of characters that are packed into one batch."""


class _Encoded(NamedTuple):
    """The token ids of a text, the part of the text that they represent, and its number of unknown characters."""

    token_ids: Integer[np.ndarray, " time"]
    text: str | bytes
    unknown: int


class Scorer:
    """Scores texts under a network, each from the beginning of a text or after a prompt.

    Attributes:
        vocabulary: as passed.
        settings: as passed.
        unknown: how often each unknown character has occurred.

    Args:
        network: the network that predicts.
        vocabulary: the characters of its token ids.
        settings: how texts are read; only the case matters here.
        prompt: read before each text and not scored.
        unknown: what to do with characters that are not in the vocabulary.
        check: called every few milliseconds while reading, and may raise to stop the scoring. With it, the last bits
            of the scores of large networks may differ from those without it.
    """

    def __init__(
        self,
        network: Network,
        vocabulary: Vocabulary,
        settings: TextSettings,
        *,
        prompt: str | bytes = "",
        unknown: UnknownPolicy = "error",
        check: Callable[[], None] | None = None,
    ) -> None:
        self.vocabulary = vocabulary
        self.settings = settings
        self._network = network
        self._unknown: UnknownPolicy = unknown
        self.unknown: Counter[str] = Counter()
        self._prompt = self._encode(prompt).token_ids
        self._check = check
        self._shapes = {
            batch_size: BlockShape.for_network(batch_size, network.parameters, is_short=check is not None)
            for batch_size in CAPACITIES
        }

    def with_line_end(self, line: Line) -> str | bytes:
        """Returns the text of `line` with the end that the model reads after it, once that end has arrived.

        The last record ends even if no delimiter follows it. An empty record is not a record.
        Other lines end with a newline if the vocabulary contains it.
        """
        record_end = self.vocabulary.record_end
        if line.problem is not None:
            return line.text
        if record_end is not None:
            is_record = line.is_last and (line.text or not line.is_first)
            return _append(line.text, record_end) if is_record else line.text
        knows_newline = self.vocabulary.units == "bytes" or "\n" in self.vocabulary.characters
        return _append(line.text, "\n") if line.has_end and knows_newline else line.text

    def with_record_end(self, text: str | bytes) -> str | bytes:
        """Returns `text` followed by one end of a record, if the model is a model of records.

        `text` may already end with the end of a record.

        Raises:
            RecordError: a record ends inside `text`.
        """
        return _append(one_record(text, self.settings), self.vocabulary.record_end or "")

    def require_known(self, text: str | bytes) -> None:
        """Makes sure that `text` can be scored.

        Raises:
            UnknownCharacterError: `text` has an unknown character, and the policy is "error".
        """
        if self._unknown == "error":
            self._encode(text)

    def warm_up(self, top_predictions: int = 0) -> None:
        """Compiles everything that scoring needs, so that the first line does not wait for it."""
        token = np.zeros(1, np.int32)
        for batch_size in CAPACITIES:
            self._score_tokens([token], batch_size)
        if top_predictions:
            TokenScorer(self._network, min(top_predictions, self.vocabulary.size), self._check).score(token)

    def score(self, texts: Sequence[str | bytes]) -> list[Score]:
        """Returns the score of each of `texts`, which are read in parallel.

        Raises:
            UnknownCharacterError: a text has an unknown character, and the policy is "error".
        """
        scores: list[Score] = []
        pending: list[_Encoded] = []
        size = 0
        for text in texts:
            pending.append(self._encode(text))
            size += len(pending[-1].token_ids) + len(self._prompt)
            if size > _MAX_PACKED:
                scores += self._score_encoded(pending)
                pending, size = [], 0
        return scores + self._score_encoded(pending)

    def begin(self, top_predictions: int = 0) -> "IncrementalScorer":
        """Returns a scorer of one text that arrives in pieces, with that many top predictions per position."""
        token_scorer = TokenScorer(self._network, min(top_predictions, self.vocabulary.size), self._check)
        if len(self._prompt):
            token_scorer.score(self._prompt)
        return IncrementalScorer(token_scorer, self._encode)

    def _score_encoded(self, texts: Sequence[_Encoded]) -> list[Score]:
        skipped = len(self._prompt)
        # An empty text reads nothing, not even the prompt.
        token_ids = [
            np.concatenate([self._prompt, of.token_ids]) if len(of.token_ids) else of.token_ids for of in texts
        ]
        total = sum(map(len, token_ids))
        time_steps = Packing.from_lengths([len(ids) for ids in token_ids], BATCH_SIZE).time_steps
        is_batched = total > BATCH_STEP_COST * (time_steps + self._shapes[BATCH_SIZE].sequence_length)
        nats = self._score_tokens(token_ids, BATCH_SIZE if is_batched else 1)
        return [Score(of.text, one[skipped:], of.unknown) for one, of in zip(nats, texts, strict=True)]

    def _score_tokens(
        self, texts: Sequence[Integer[np.ndarray, " _"]], batch_size: int
    ) -> list[Float32[np.ndarray, " _"]]:
        """Returns the nats of each token of `texts`, which are packed into `batch_size` rows."""
        packing = Packing.from_lengths([len(text) for text in texts], batch_size)
        carry = self._network.zero_carry(batch_size)
        parts = []
        _, capacity, sequence_length = self._shapes[batch_size]
        for block in packing.blocks(texts, capacity, sequence_length):
            if self._check is not None:
                self._check()
            (nats, *_), carry = score_block(
                self._network, block.token_ids, block.resets, block.steps, block.steps, carry, top_predictions=0
            )
            parts.append(np.asarray(nats)[: block.steps].reshape(-1, batch_size))
        by_row = np.concatenate(parts).T if parts else np.zeros((batch_size, 0), np.float32)
        scores: list[Float32[np.ndarray, " _"]] = [np.zeros(0, np.float32)] * len(texts)
        for row, indexes in enumerate(packing.rows):
            begin = 0
            for index in indexes:
                end = begin + len(texts[index])
                scores[index] = by_row[row, begin:end]
                begin = end
        return scores

    def _encode(self, text: str | bytes, position: int = 0) -> _Encoded:
        if isinstance(text, str):
            if self.vocabulary.units == "bytes":
                text = text.encode("utf-8", "surrogateescape")
            elif self.settings.lowercase:
                text = text.lower()
        try:
            return _Encoded(self.vocabulary.encode(text, position=position), text, 0)
        except UnknownCharacterError:
            if self._unknown == "error":
                raise
        assert isinstance(text, str)  # every byte is known
        unknowns = self.vocabulary.unknown_characters(text)
        ids = self.vocabulary.encode(text, self._unknown)
        if self._unknown == "skip":
            text = text.translate(dict.fromkeys(map(ord, set(unknowns))))
        self.unknown.update(unknowns)
        return _Encoded(ids, text, len(unknowns))


def _append(text: str | bytes, end: str) -> str | bytes:
    return text + end if isinstance(text, str) else text + end.encode()


class IncrementalScorer:
    """Scores a text that arrives in pieces, with the recurrent state carried from piece to piece."""

    def __init__(self, token_scorer: TokenScorer, encode: Callable[[str | bytes, int], _Encoded]) -> None:
        self._token_scorer = token_scorer
        self._encode = encode
        self._position = 0

    def score(self, *pieces: str | bytes) -> list[Score]:
        """Returns the scores of the text's next pieces, which are read together.

        Raises:
            UnknownCharacterError: a piece has an unknown character, and the policy is "error". Nothing is read then.
        """
        if not pieces:
            return []
        encoded, position = [], self._position
        for piece in pieces:
            encoded.append(self._encode(piece, position))
            position += len(piece)
        self._position = position
        token_ids = np.concatenate([of.token_ids for of in encoded])
        nats, top_predictions = self._token_scorer.score(token_ids)
        ends = np.cumsum([len(of.token_ids) for of in encoded])[:-1]
        arrays = (np.split(array, ends) for array in (nats, *top_predictions))
        return [
            Score(of.text, one, of.unknown, TopPredictions(ids, log_probs) if ids.size else None)
            for of, one, ids, log_probs in zip(encoded, *arrays, strict=True)
        ]
