"""What the commands that score share: their inputs, and how lines and totals are told."""

import heapq
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from charloom.cli.streams import print_lines, tell
from charloom.errors import CharloomError, EncodingError, SourceError, UnknownCharacterError
from charloom.settings import TextSettings, UnknownPolicy
from charloom.units import finite_or_none

if TYPE_CHECKING:
    from charloom.inference import Cost, LineScore, Score, Scorer


@dataclass(frozen=True)
class Input:
    """A text that is scored.

    Attributes:
        name: as it is called in messages.
        chunks: begins to read it.
        settings: how its bytes are read.
    """

    name: str
    chunks: Callable[[], Iterator[bytes]]
    settings: TextSettings


def inputs(files: Sequence[str], settings: TextSettings) -> list[Input]:
    """Returns the texts that `files` name, in order; standard input is not read yet.

    Raises:
        SourceError: one is missing.
    """
    from charloom.text import find_sources, is_pipe, pipe_chunks, standard_input_chunks

    found = []
    for file in files:
        if file == "-":
            found.append(Input("standard input", standard_input_chunks, settings))
            continue
        if is_pipe(file):  # whose lines are scored as they come
            found.append(Input(file, partial(pipe_chunks, file), settings))
            continue
        sources = find_sources([file], settings)
        for notice in sources.notices:
            tell(notice)
        found += [Input(source.name, source.chunks, settings) for source in sources.files]
    return found


def named(found: Sequence[Input]) -> str:
    """Returns what several inputs are called together."""
    names = [one.name for one in found[:3]]
    return ", ".join(names) + (f" and {len(found) - 3:,} more" if len(found) > 3 else "")


def total_costs(scorers: Sequence["Scorer"], found: Sequence[Input]) -> list["Cost"]:
    """Returns what the texts cost each of `scorers`, all together; records each from its own beginning."""
    from charloom.inference import Cost, scored_pieces

    totals = [Cost()] * len(scorers)
    for one in found:
        if one.settings.delimiter is not None:
            rows = ([line.cost for line in row] for batch in line_costs(scorers, one) for row in batch)
        else:
            rows = ([cost for _, cost in row] for row in scored_pieces(scorers, one.chunks(), one.name, one.settings))
        with _telling_where(one):
            for row in rows:
                totals = [total + cost for total, cost in zip(totals, row, strict=True)]
    return totals


def require_scored(found: Sequence[Input], costs: Sequence["Cost"]) -> None:
    """Makes sure that there was something to score.

    Raises:
        CharloomError: there was not.
    """
    if not all(cost.characters for cost in costs):
        raise CharloomError(
            f"{named(found)} has no character that the model knows. Give another text."
            if any(cost.unknown for cost in costs)
            else f"{named(found)}: empty. Give a text to score."
        )


def line_costs(
    scorers: Sequence["Scorer"], one: Input, *, carry: bool = False
) -> Iterator[list[tuple["LineScore", ...]]]:
    """Yields batches of lines, in order: what each costs each of `scorers`. Bad lines are told, and left out."""
    from charloom.inference import score_lines
    from charloom.text import iter_lines

    batches = iter_lines(one.chunks(), one.name, one.settings)
    copies = itertools.tee(batches, len(scorers))
    scored = [score_lines(scorer, copy, carry=carry) for scorer, copy in zip(scorers, copies, strict=True)]
    with _telling_where(one):
        for batch in zip(*scored, strict=True):
            rows = list(zip(*batch, strict=False))  # one that meets an unknown character ends sooner, and says so next
            for row in rows:
                _tell_problem(one, row[0].number, row[0].problem)
            yield [row for row in rows if row[0].problem is None]


def piece_scores(scorer: "Scorer", one: Input, top_predictions: int = 0) -> Iterator["Score"]:
    """Yields the scores of a text's pieces, with so many top predictions; records each start from zero."""
    from charloom.inference import score_parts, scored_pieces
    from charloom.text import iter_lines

    with _telling_where(one):
        if one.settings.delimiter is None:
            for ((score, _),) in scored_pieces([scorer], one.chunks(), one.name, one.settings, top_predictions):
                yield score
            return
        for parts in score_parts(
            scorer, iter_lines(one.chunks(), one.name, one.settings), top_predictions=top_predictions
        ):
            for line, score in parts:
                if line.is_last:
                    _tell_problem(one, line.number, line.problem)
                yield score


def _tell_problem(one: Input, number: int, problem: str | None) -> None:
    if problem is not None:
        tell(f"{one.name}, line {number:,}: {problem}; not scored")


@contextmanager
def _telling_where(one: Input) -> Iterator[None]:
    """Says in which text what went wrong, and what to do about its encoding."""
    try:
        yield
    except UnknownCharacterError as error:
        raise CharloomError(f"{one.name}: {error}") from error
    except EncodingError as error:
        raise SourceError(
            f"{error.problem} Pass --encoding with the text's own, or give it to a model of bytes (trained with "
            "--bytes)."
        ) from error


def tell_unknown(name: str, scorer: "Scorer", unknown: UnknownPolicy) -> None:
    """Says on standard error which characters `scorer` has not known so far, and what became of them.

    Args:
        name: of its model, to be told where there are several; else nothing.
        scorer: forgets them.
        unknown: the policy.
    """
    from charloom.text import describe_characters

    if scorer.unknown:
        done = "left out" if unknown == "skip" else f"scored as {scorer.vocabulary.replacement!r}"
        who = f"{name}: " if name else ""
        which = f"character{'s' * (scorer.unknown.total() > 1)} {done}, unknown to the model"
        tell(f"{who}{scorer.unknown.total():,} {which}: {describe_characters(scorer.unknown)}")
        scorer.unknown.clear()


def tell_comparison(scorers: Sequence["Scorer"]) -> None:
    """Says on standard error by what models are compared that do not know the same characters."""
    if len({(scorer.vocabulary.units, scorer.vocabulary.characters) for scorer in scorers}) > 1:
        tell(
            "the models do not know the same characters: they are compared by bits per byte of UTF-8, an unknown "
            "character charged as one of all there are"
        )


def units_of(text: str | bytes) -> Sequence[str]:
    """Returns the characters of a text, or its bytes, those that are no ASCII escaped."""
    return text if isinstance(text, str) else [chr(byte) if byte < 0x80 else f"\\x{byte:02x}" for byte in text]


class Lines:
    """Prints lines as they are scored, or the highest of them at the end.

    Args:
        above: print those alone that are rated higher.
        top: print so many of the highest, at the end; None to print them as they come.
        as_text: says how a line is printed.
    """

    def __init__(self, above: float | None, top: int | None, as_text: Callable[[dict[str, Any]], str]) -> None:
        self._above, self._top, self._as_text = above, top, as_text
        self._held: list[tuple[float, int, dict[str, Any]]] = []
        self._count = itertools.count()

    def add(self, rated: Sequence[tuple[float, dict[str, Any]]]) -> None:
        """Takes lines with their ratings; those to be printed at once are, and leave Python's buffers."""
        chosen = [(rating, row) for rating, row in rated if self._above is None or rating > self._above]
        if self._top is None:
            print_lines(self._as_text(row) for _, row in chosen)
            return
        for rating, row in chosen:
            entry = (rating, -next(self._count), row)  # of equals the earlier one is kept
            if len(self._held) < self._top:
                heapq.heappush(self._held, entry)
            else:
                heapq.heappushpop(self._held, entry)

    def finish(self) -> None:
        """Prints those that were held, the highest first."""
        held, self._held = self._held, []  # at once: a signal may have this done in another thread
        rows = [row for _, _, row in sorted(held, key=lambda entry: entry[:2], reverse=True)]
        print_lines(map(self._as_text, rows))


def line_report(name: str | None, line: "LineScore") -> dict[str, Any]:
    """Returns what JSON has of a line; with `name`, of which file it is."""
    return ({} if name is None else {"file": name}) | {
        "line": line.number,
        "characters": line.cost.characters,
        "nats": finite_or_none(line.cost.nats),
        "bits_per_char": finite_or_none(line.cost.bits_per_char),
        "peak_bits": finite_or_none(line.cost.peak_bits),
        "unknown": line.cost.unknown,
        "text": line.shown,
    }


def line_text(row: dict[str, Any], figure: float | None, remark: str = "") -> str:
    """Returns a line for people: a figure, what else there is to say, where it stands, and its text."""
    where = f"{row['file']}:{row['line']}" if "file" in row else str(row["line"])
    number = "      –" if figure is None else f"{figure:7.3f}"
    return f"{number}  {remark}{where:>6}  {row['text']}"


def as_json_line(row: dict[str, Any]) -> str:
    """Returns a row as a line of JSON."""
    return json.dumps(row)
