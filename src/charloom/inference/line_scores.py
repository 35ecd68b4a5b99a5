"""Lines and what they cost, in the order in which they come."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from charloom.errors import UnknownCharacterError
from charloom.inference.costs import Cost
from charloom.inference.reading import Scorer, TextReading
from charloom.text import Line

SHOWN = 10_000
"""Characters of a line that are kept to be shown."""


@dataclass(frozen=True)
class LineScore:
    """What a line cost.

    Attributes:
        number: counted from 1.
        text: without its end; of a very long line the beginning.
        cost: of its characters; the line's end is one.
        problem: why the line was not scored.
    """

    number: int
    text: str | bytes
    cost: Cost = Cost()
    problem: str | None = None


def score_lines(scorer: Scorer, batches: Iterable[Sequence[Line]], *, carry: bool = False) -> Iterator[list[LineScore]]:
    """Yields the scores of each batch's lines, in order; of a line that comes in parts when its last one has come.

    Args:
        scorer: of the model.
        batches: lines that are scored together.
        carry: whether a line goes on from the one before it, instead of from the beginning of a text.

    Raises:
        UnknownCharacterError: a character is unknown and is an error; the lines before it have been yielded.
    """
    whole = scorer.begin() if carry else None
    open_line: _OpenLine | None = None
    end, is_record = scorer.line_end, scorer.vocabulary.record_end is not None

    def ended(line: Line) -> str | bytes:
        if not (line.is_last and (line.has_end or is_record)):
            return line.text
        return line.text + end if isinstance(line.text, str) else line.text + end.encode()

    for lines in batches:
        done: list[LineScore] = []
        for is_whole, run in groupby(lines, key=lambda line: line.is_first and line.is_last):
            if is_whole:
                found, error = _of_whole_lines(scorer, whole, list(run), ended)
                done += found
                if error is not None:
                    yield done
                    raise error
                continue
            for line in run:
                if line.is_first:
                    open_line = _OpenLine(whole or scorer.begin())
                assert open_line is not None  # the first part has come
                try:
                    open_line.add(line, ended(line))
                except UnknownCharacterError as error:
                    yield done
                    raise _at(line, error) from error
                if line.is_last:
                    done.append(open_line.score)
        yield done


class _OpenLine:
    """A line that comes in parts."""

    def __init__(self, reading: TextReading) -> None:
        self._reading = reading
        self.score = LineScore(0, "")

    def add(self, line: Line, text: str | bytes) -> None:
        before = line.text[:0] if line.is_first else self.score.text
        if line.problem is not None:
            self.score = LineScore(line.number, before, problem=line.problem)
            return
        (score,) = self._reading.read(text)
        shown = before if len(before) >= SHOWN else before + line.text  # type: ignore[operator]
        self.score = LineScore(line.number, shown[:SHOWN], self.score.cost + Cost.of(score, text))


def _of_whole_lines(
    scorer: Scorer, reading: TextReading | None, lines: list[Line], ended: Callable[[Line], str | bytes]
) -> tuple[list[LineScore], UnknownCharacterError | None]:
    """Returns the lines' scores, and what is wrong with the line behind them."""
    readable = [line for line in lines if line.problem is None]
    texts = [ended(line) for line in readable]
    try:
        scores = reading.read(*texts) if reading and texts else scorer.score(texts)
    except UnknownCharacterError as error:
        if len(lines) == 1:
            return [], _at(lines[0], error)
        found: list[LineScore] = []
        for line in lines:
            one, wrong = _of_whole_lines(scorer, reading, [line], ended)
            found += one
            if wrong is not None:
                return found, wrong
        raise
    by_number = {
        line.number: LineScore(line.number, line.text[:SHOWN], Cost.of(score, text))
        for line, text, score in zip(readable, texts, scores, strict=True)
    }
    return [by_number.get(line.number) or LineScore(line.number, "", problem=line.problem) for line in lines], None


def _at(line: Line, error: UnknownCharacterError) -> UnknownCharacterError:
    return UnknownCharacterError(f"line {line.number:,}: {error}")
