"""Texts that are not written twice, and not copied from what the model has read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from charloom.inference import TextStream
from charloom.prompted_model import PromptedModel
from charloom.settings import SamplingSettings, TextSettings, require_count
from charloom.text import Corpus, split_records

TOGETHER = 64
"""Texts that are written side by side, several times as fast as one after another."""
_TRIES_IN_VAIN = 2_000
"""So many tries in a row that bring nothing end the search."""


class KnownText:
    """A text that nothing is to be copied from.

    Args:
        corpus: what was read.
        settings: as the model was trained with; they tell records from a text that goes on.
    """

    def __init__(self, corpus: Corpus, settings: TextSettings):
        texts: Sequence[str | bytes] = corpus.documents
        self._records: frozenset[str] | None = None
        if settings.delimiter is not None:
            texts = split_records(corpus.documents, settings)
            self._records = frozenset(map(_as_written, texts))
        self._all = (settings.record_end or "\0").join(map(_as_written, texts))

    def has(self, text: str) -> bool:
        """Returns whether `text` is one of the records, or stands somewhere in a text that goes on."""
        return text in self._all if self._records is None else text in self._records

    def longest_run(self, text: str, longer_than: int) -> int:
        """Returns the length of the longest part of `text` that stands in the known one, or `longer_than`."""
        longest, begin = longer_than, 0
        while begin + longest < len(text):
            if text[begin : begin + longest + 1] in self._all:
                longest += 1
            else:
                begin += 1
        return longest


@dataclass
class Tally:
    """What a search came to.

    Attributes:
        found: texts that were kept.
        tries: texts that were written.
        duplicates: those that had been written before.
        copies: those that the known text has.
        unfinished: records that did not end within the length.
        empty: those without any character.
        longest_run: characters of the longest part of a kept text that stands in the known one.
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
) -> Iterator[tuple[str, TextStream]]:
    """Yields up to `count` texts, each with how it was written; fewer where thousands of tries bring nothing new.

    Args:
        prompted: what writes them.
        count: how many are wanted.
        length: new characters of each at most.
        settings: how characters are chosen.
        tally: is kept up to date.
        seed: of the choices.
        stop: end each before this text.
        unique: whether none may come twice.
        known: a text that none may be copied from.
    """
    count = require_count("count", count)
    is_record = prompted.model.text.delimiter is not None
    seen: set[str] = set()
    last_found = 0
    while tally.found < count and tally.tries - last_found < _TRIES_IN_VAIN:
        indexes = range(tally.tries, tally.tries + TOGETHER)
        for writing in prompted.stream_many(length, settings, seed=seed, stream_indexes=indexes, stop=stop):
            text = "".join(writing)
            # A prompt is no copy of the model's, but of a record it is a part.
            whole = prompted.prompt + text if is_record else text
            tally.tries += 1
            if is_record and writing.stopped == "length":
                tally.unfinished += 1
            elif not whole:
                tally.empty += 1
            elif known is not None and known.has(whole):
                tally.copies += 1
            elif unique and whole in seen:
                tally.duplicates += 1
            else:
                seen.add(whole)
                tally.found, last_found = tally.found + 1, tally.tries
                if known is not None:
                    tally.longest_run = known.longest_run(whole, tally.longest_run)
                yield text, writing
                if tally.found == count:
                    return


def _as_written(text: str | bytes) -> str:
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else text
