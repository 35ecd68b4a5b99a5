"""What the scoring commands share: their inputs, and how they print lines and totals."""

import heapq
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from charloom.cli.streams import print_lines, print_message
from charloom.errors import CharloomError, EncodingError, SourceError, UnknownCharacterError
from charloom.settings import TextSettings, UnknownPolicy
from charloom.units import finite_or_none

if TYPE_CHECKING:
    from charloom.inference import Cost, LineScore, Score, Scorer


@dataclass(frozen=True)
class Input:
    """A text to score.

    Attributes:
        name: its name in messages.
        chunks: starts reading it.
        settings: how to read its bytes.
    """

    name: str
    chunks: Callable[[], Iterator[bytes]]
    settings: TextSettings


def inputs(files: Sequence[str], settings: TextSettings) -> list[Input]:
    """Returns the texts that `files` name, in order, without reading standard input.

    Raises:
        SourceError: a file is missing.
    """
    from charloom.text import find_sources, is_pipe, pipe_chunks, standard_input_chunks

    texts = []
    for file in files:
        if file == "-":
            texts.append(Input("standard input", standard_input_chunks, settings))
            continue
        if is_pipe(file):  # its lines are scored as they arrive
            texts.append(Input(file, partial(pipe_chunks, file), settings))
            continue
        sources = find_sources([file], settings)
        for notice in sources.notices:
            print_message(notice)
        texts += [Input(source.name, source.chunks, settings) for source in sources.files]
    return texts


def joined_names(texts: Sequence[Input]) -> str:
    """Returns the names of several inputs: the first three, and how many more there are."""
    names = [text.name for text in texts[:3]]
    return ", ".join(names) + (f" and {len(texts) - 3:,} more" if len(texts) > 3 else "")


def total_costs(scorers: Sequence["Scorer"], texts: Sequence[Input]) -> list["Cost"]:
    """Returns the total cost of all texts for each of `scorers`. Each record is scored from its own beginning."""
    from charloom.inference import Cost, scored_pieces

    totals = [Cost()] * len(scorers)
    for text in texts:
        if text.settings.delimiter is not None:
            rows = ([line.cost for line in row] for batch in line_costs(scorers, text) for row in batch)
        else:
            pieces = scored_pieces(scorers, text.chunks(), text.name, text.settings)
            rows = ([cost for _, cost in row] for row in pieces)
        with _naming_input(text):
            for row in rows:
                totals = [total + cost for total, cost in zip(totals, row, strict=True)]
    return totals


def require_scored(texts: Sequence[Input], costs: Sequence["Cost"]) -> None:
    """Checks that there was something to score.

    Raises:
        CharloomError: there was nothing to score.
    """
    if not all(cost.characters for cost in costs):
        raise CharloomError(
            f"{joined_names(texts)} has no character that the model knows. Give another text."
            if any(cost.unknown for cost in costs)
            else f"{joined_names(texts)}: empty. Give a text to score."
        )


def line_costs(
    scorers: Sequence["Scorer"], text: Input, *, carry: bool = False
) -> Iterator[list[tuple["LineScore", ...]]]:
    """Yields batches of lines, in order: the cost of each line for each of `scorers`. Reports and skips bad lines."""
    from charloom.inference import score_lines
    from charloom.text import iter_lines

    batches = iter_lines(text.chunks(), text.name, text.settings)
    copies = itertools.tee(batches, len(scorers))
    scored = [score_lines(scorer, copy, carry=carry) for scorer, copy in zip(scorers, copies, strict=True)]
    with _naming_input(text):
        for batch in zip(*scored, strict=True):
            # A scorer that meets an unknown character yields fewer lines here, and raises at the next batch.
            rows = list(zip(*batch, strict=False))
            for row in rows:
                _report_problem(text, row[0].number, row[0].problem)
            yield [row for row in rows if row[0].problem is None]


def piece_scores(scorer: "Scorer", text: Input, top_predictions: int = 0) -> Iterator["Score"]:
    """Yields the scores of a text's pieces, with the given number of top predictions. Each record starts from zero."""
    from charloom.inference import score_parts, scored_pieces
    from charloom.text import iter_lines

    with _naming_input(text):
        if text.settings.delimiter is None:
            for ((score, _),) in scored_pieces([scorer], text.chunks(), text.name, text.settings, top_predictions):
                yield score
            return
        lines = iter_lines(text.chunks(), text.name, text.settings)
        for parts in score_parts(scorer, lines, top_predictions=top_predictions):
            for line, score in parts:
                if line.is_last:
                    _report_problem(text, line.number, line.problem)
                yield score


def _report_problem(text: Input, number: int, problem: str | None) -> None:
    if problem is not None:
        print_message(f"{text.name}, line {number:,}: {problem}; not scored")


@contextmanager
def _naming_input(text: Input) -> Iterator[None]:
    """Adds the text's name, or advice about its encoding, to an error."""
    try:
        yield
    except UnknownCharacterError as error:
        raise CharloomError(f"{text.name}: {error}") from error
    except EncodingError as error:
        raise SourceError(
            f"{error.problem} Pass the text's encoding with --encoding, or use a model of bytes (trained with --bytes)."
        ) from error


def report_unknown(name: str, scorer: "Scorer", unknown: UnknownPolicy) -> None:
    """Prints which characters `scorer` did not know so far, and what it did with them.

    Args:
        name: the model's name if there are several models; otherwise empty.
        scorer: the scorer; its count of unknown characters is reset.
        unknown: the policy.
    """
    from charloom.text import describe_characters

    if scorer.unknown:
        action = "left out" if unknown == "skip" else f"scored as {scorer.vocabulary.replacement!r}"
        model = f"{name}: " if name else ""
        count = scorer.unknown.total()
        print_message(
            f"{model}{count:,} unknown character{'s' * (count > 1)} {action}: {describe_characters(scorer.unknown)}"
        )
        scorer.unknown.clear()


def report_comparison(scorers: Sequence["Scorer"]) -> None:
    """Prints how models with different vocabularies are compared."""
    if len({(scorer.vocabulary.units, scorer.vocabulary.characters) for scorer in scorers}) > 1:
        print_message(
            "the models have different vocabularies: charloom compares them by bits per byte of UTF-8, and an unknown "
            "character costs as much as a blind guess among all Unicode characters"
        )


def units_of(text: str | bytes) -> Sequence[str]:
    """Returns the characters of a text, or its bytes with those outside of ASCII escaped."""
    return text if isinstance(text, str) else [chr(byte) if byte < 0x80 else f"\\x{byte:02x}" for byte in text]


class Lines:
    """Prints lines as they are scored, or the highest-rated of them at the end.

    Args:
        above: print only lines that are rated higher.
        top: print this many of the highest-rated lines at the end; None to print lines as they arrive.
        as_text: formats a line.
    """

    def __init__(self, above: float | None, top: int | None, as_text: Callable[[dict[str, Any]], str]) -> None:
        self._above, self._top, self._as_text = above, top, as_text
        self._kept: list[tuple[float, int, dict[str, Any]]] = []
        self._count = itertools.count()

    def add(self, rated: Sequence[tuple[float, dict[str, Any]]]) -> None:
        """Takes lines with their ratings, and prints and flushes those that need not wait."""
        chosen = [(rating, row) for rating, row in rated if self._above is None or rating > self._above]
        if self._top is None:
            print_lines(self._as_text(row) for _, row in chosen)
            return
        for rating, row in chosen:
            entry = (rating, -next(self._count), row)  # among equals the earlier one is kept
            if len(self._kept) < self._top:
                heapq.heappush(self._kept, entry)
            else:
                heapq.heappushpop(self._kept, entry)

    def finish(self) -> None:
        """Prints the lines that were kept, the highest-rated first."""
        kept, self._kept = self._kept, []  # in one step: a signal may call this in another thread
        rows = [row for _, _, row in sorted(kept, key=lambda entry: entry[:2], reverse=True)]
        print_lines(map(self._as_text, rows))


def line_report(name: str | None, line: "LineScore") -> dict[str, Any]:
    """Returns the JSON values of a line, with its file's `name` if that is given."""
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
    """Returns a line for people: its figure, an optional remark, where it is, and its text."""
    where = f"{row['file']}:{row['line']}" if "file" in row else str(row["line"])
    number = "      –" if figure is None else f"{figure:7.3f}"
    return f"{number}  {remark}{where:>6}  {row['text']}"


def as_json_line(row: dict[str, Any]) -> str:
    """Returns a row as a line of JSON."""
    return json.dumps(row)
