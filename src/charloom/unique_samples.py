"""Samples without duplicates, and without copies of a known text."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count as counted

from charloom.inference import TextStream
from charloom.prompted_model import PromptedModel
from charloom.settings import SamplingSettings, TextSettings, require_count
from charloom.text import Corpus, split_records

_MAX_FAILED_TRIES = 2_000
"""The search ends after this many tries in a row without a new text."""


class KnownText:
    """A text that samples must not be copied from.

    Args:
        corpus: the text.
        settings: the model's text settings, which say whether the text is made of records.
    """

    def __init__(self, corpus: Corpus, settings: TextSettings):
        texts: Sequence[str | bytes] = corpus.documents
        self._records: frozenset[str] | None = None
        if settings.delimiter is not None:
            texts = split_records(corpus.documents, settings)
            self._records = frozenset(map(_as_text, texts))
        self._all = (settings.record_end or "\0").join(map(_as_text, texts))

    def has(self, text: str) -> bool:
        """Returns whether `text` is one of the records, or occurs in continuous text."""
        return text in self._all if self._records is None else text in self._records

    def longest_run(self, text: str, longer_than: int) -> int:
        """Returns the length of the longest passage of `text` that occurs in the known text, or `longer_than`."""
        longest, begin = longer_than, 0
        while begin + longest < len(text):
            if text[begin : begin + longest + 1] in self._all:
                longest += 1
            else:
                begin += 1
        return longest


@dataclass
class Tally:
    """The counts of a search.

    Attributes:
        found: texts that were kept.
        tries: texts that were generated.
        duplicates: texts that had been generated before.
        copies: texts that occur in the known text.
        unfinished: records that did not end within the length.
        empty: texts without any character.
        longest_run: length of the longest passage of a kept text that occurs in the known text.
    """

    found: int = 0
    tries: int = 0
    duplicates: int = 0
    copies: int = 0
    unfinished: int = 0
    empty: int = 0
    longest_run: int = 0


def unique_samples(
    prompted: PromptedModel,
    count: int,
    length: int,
    settings: SamplingSettings,
    tally: Tally,
    *,
    seed: int,
    stop: str | None = None,
    unique: bool = True,
    known: KnownText | None = None,
    before_generating: Callable[[], None] = lambda: None,
) -> Iterator[tuple[str, TextStream]]:
    """Yields up to `count` texts, each with its stream; fewer if thousands of tries in a row give nothing new.

    Args:
        prompted: the model and its prompt.
        count: how many texts to yield.
        length: the maximum number of new characters per text.
        settings: the sampling settings.
        tally: the counts, which this function updates.
        seed: the random seed.
        stop: a text to stop before.
        unique: whether to drop duplicates.
        known: a text; samples that occur in it are dropped.
        before_generating: as in `PromptedModel.stream_many`.
    """
    count = require_count("count", count)
    is_record = prompted.model.text.delimiter is not None
    kept: set[str] = set()
    last_found = 0
    streams = prompted.stream_many(
        length, settings, seed=seed, stream_indexes=counted(), stop=stop, before_generating=before_generating
    )
    while tally.found < count and tally.tries - last_found < _MAX_FAILED_TRIES:
        stream = next(streams)
        text = "".join(stream)
        # The user wrote the prompt, so it does not count as copied; but it is a part of a record.
        whole = prompted.prompt + text if is_record else text
        tally.tries += 1
        if is_record and stream.stopped == "length":
            tally.unfinished += 1
        elif not whole:
            tally.empty += 1
        elif known is not None and known.has(whole):
            tally.copies += 1
        elif unique and whole in kept:
            tally.duplicates += 1
        else:
            kept.add(whole)
            tally.found, last_found = tally.found + 1, tally.tries
            if known is not None:
                tally.longest_run = known.longest_run(whole, tally.longest_run)
            yield text, stream


def _as_text(text: str | bytes) -> str:
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else text
