"""Lines and what they cost, in the order in which they come."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from charloom.errors import UnknownCharacterError
from charloom.inference.costs import Cost
from charloom.inference.reading import Score, Scorer, TextReading
from charloom.text import Line

SHOWN = 10_000
"""Characters of a line that are kept to be shown."""


@dataclass(frozen=True)
class LineScore:
    """What a line cost.

    Attributes:
        number: counted from 1.
        text: without its end; of a very long line the beginning.
        cost: of its characters; the line's end is one. A record without any is none, and costs nothing.
        problem: why the line was not scored.
    """

    number: int
    text: str | bytes
    cost: Cost = Cost()
    problem: str | None = None

    @property
    def shown(self) -> str:
        """Its text as JSON can have it: bytes that are no UTF-8 are escaped."""
        return self.text.decode("utf-8", "backslashreplace") if isinstance(self.text, bytes) else self.text


def score_lines(scorer: Scorer, batches: Iterable[Sequence[Line]], *, carry: bool = False) -> Iterator[list[LineScore]]:
    """Yields the scores of each batch's lines, in order; of a line that comes in parts when its last one has come.

    Args:
        scorer: of the model.
        batches: lines that are scored together.
        carry: whether a line goes on from the one before it, instead of from the beginning of a text.

    Raises:
        UnknownCharacterError: a character is unknown and is an error; the lines before it have been yielded.
    """
    open_line = LineScore(0, "")
    for parts in score_parts(scorer, batches, carry=carry):
        done = []
        for line, score in parts:
            before = LineScore(line.number, line.text[:0]) if line.is_first else open_line
            # Both are str, or both are bytes, which mypy cannot know.
            shown = before.text if len(before.text) >= SHOWN else before.text + line.text  # type: ignore[operator]
            cost = Cost.of(score, scorer.ended(line))
            open_line = LineScore(line.number, shown[:SHOWN], before.cost + cost)
            if line.problem is not None:
                open_line = LineScore(line.number, line.text[:0], problem=line.problem)
            if line.is_last:
                done.append(open_line)
        yield done


def score_parts(
    scorer: Scorer, batches: Iterable[Sequence[Line]], *, carry: bool = False, top_predictions: int = 0
) -> Iterator[list[tuple[Line, Score]]]:
    """Yields the lines of each batch, or parts of them, with their scores; of those with a problem empty ones.

    Args:
        scorer: of the model.
        batches: lines that are scored together.
        carry: as of `score_lines`.
        top_predictions: how many of the most likely tokens are wanted in each place.

    Raises:
        UnknownCharacterError: as of `score_lines`.
    """
    whole = scorer.begin(top_predictions) if carry else None
    open_line: TextReading | None = None
    for lines in batches:
        done: list[tuple[Line, Score]] = []
        for is_whole, run in groupby(lines, key=lambda line: line.is_first and line.is_last):
            together = list(run)
            if is_whole:
                known, error = _known(scorer, together)
                done += zip(known, _scores(scorer, whole, known, top_predictions), strict=True)
            else:
                error = None
                for line in together:
                    if line.is_first:
                        open_line = whole or scorer.begin(top_predictions)
                    assert open_line is not None  # the first part has come
                    _, error = _known(scorer, [line])
                    if error is None:
                        done.append((line, open_line.read(scorer.ended(line))[0]))
            if error is not None:
                yield done
                raise error
        yield done


def _scores(scorer: Scorer, reading: TextReading | None, lines: Sequence[Line], top_predictions: int) -> list[Score]:
    texts = [scorer.ended(line) for line in lines]
    if reading is not None:
        return reading.read(*texts)
    return [scorer.begin(top_predictions).read(text)[0] for text in texts] if top_predictions else scorer.score(texts)


def _known(scorer: Scorer, lines: list[Line]) -> tuple[list[Line], UnknownCharacterError | None]:
    """Returns the lines before the first with an unknown character that is an error, and that error."""
    for count, line in enumerate(lines):
        try:
            scorer.require_known(line.text)
        except UnknownCharacterError as error:
            return lines[:count], UnknownCharacterError(f"line {line.number:,}: {error}")
    return lines, None
