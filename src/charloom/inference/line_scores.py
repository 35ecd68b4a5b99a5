"""Scores of lines, in the order in which the lines arrive."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from charloom.errors import UnknownCharacterError
from charloom.inference.costs import Cost
from charloom.inference.scorer import IncrementalScorer, Scorer
from charloom.inference.scores import Score
from charloom.text import Line

SHOWN = 10_000
"""Maximum number of characters of a line that are kept for display."""


@dataclass(frozen=True)
class LineScore:
    """The score of a line.

    Attributes:
        number: line number, counted from 1.
        text: the line without its end; the beginning of a very long line.
        cost: total of its characters, including the end of the line. An empty record is not a record and costs nothing.
        problem: why the line was not scored.
    """

    number: int
    text: str | bytes
    cost: Cost = Cost()
    problem: str | None = None

    @property
    def shown(self) -> str:
        """The text as JSON can represent it: bytes that are not UTF-8 are escaped."""
        return self.text.decode("utf-8", "backslashreplace") if isinstance(self.text, bytes) else self.text


def score_lines(scorer: Scorer, batches: Iterable[Sequence[Line]], *, carry: bool = False) -> Iterator[list[LineScore]]:
    """Yields the scores of each batch's lines, in order. A line that arrives in parts is scored with its last part.

    Args:
        scorer: scores under the model.
        batches: lines that are scored together.
        carry: whether the state is carried from line to line; otherwise each line is a separate text.

    Raises:
        UnknownCharacterError: a line has an unknown character, and the policy is "error". The lines before it have been
            yielded.
    """
    open_line = LineScore(0, "")
    for parts in score_parts(scorer, batches, carry=carry):
        done = []
        for line, score in parts:
            before = LineScore(line.number, line.text[:0]) if line.is_first else open_line
            # Both are str, or both are bytes; mypy cannot know that.
            shown = before.text if len(before.text) >= SHOWN else before.text + line.text  # type: ignore[operator]
            cost = Cost.of(score, scorer.with_line_end(line))
            open_line = LineScore(line.number, shown[:SHOWN], before.cost + cost)
            if line.problem is not None:
                open_line = LineScore(line.number, line.text[:0], problem=line.problem)
            if line.is_last:
                done.append(open_line)
        yield done


def score_parts(
    scorer: Scorer, batches: Iterable[Sequence[Line]], *, carry: bool = False, top_predictions: int = 0
) -> Iterator[list[tuple[Line, Score]]]:
    """Yields the lines of each batch, or parts of lines, with their scores. Lines with a problem have empty scores.

    Args:
        scorer: scores under the model.
        batches: lines that are scored together.
        carry: as in `score_lines`.
        top_predictions: number of most likely tokens per position.

    Raises:
        UnknownCharacterError: as in `score_lines`.
    """
    whole = scorer.begin(top_predictions) if carry else None
    open_line: IncrementalScorer | None = None
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
                    assert open_line is not None  # the first part has arrived
                    _, error = _known(scorer, [line])
                    if error is None:
                        done.append((line, open_line.score(scorer.with_line_end(line))[0]))
            if error is not None:
                yield done
                raise error
        yield done


def _scores(
    scorer: Scorer, incremental: IncrementalScorer | None, lines: Sequence[Line], top_predictions: int
) -> list[Score]:
    texts = [scorer.with_line_end(line) for line in lines]
    if incremental is not None:
        return incremental.score(*texts)
    return [scorer.begin(top_predictions).score(text)[0] for text in texts] if top_predictions else scorer.score(texts)


def _known(scorer: Scorer, lines: list[Line]) -> tuple[list[Line], UnknownCharacterError | None]:
    """Returns the lines before the first one with an unknown character that is an error, and that error."""
    for count, line in enumerate(lines):
        try:
            scorer.require_known(line.text)
        except UnknownCharacterError as error:
            return lines[:count], UnknownCharacterError(f"line {line.number:,}: {error}")
    return lines, None
