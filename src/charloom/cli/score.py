"""`charloom score`."""

import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from charloom.cli.interrupt import before_ending
from charloom.cli.options import (
    FilePath,
    SourceName,
    encoding_option,
    encoding_or_default,
    json_option,
    require_encoding,
    set_threads,
    threads_option,
)
from charloom.cli.scoring import (
    Input,
    Lines,
    as_json_line,
    inputs,
    line_costs,
    line_report,
    line_text,
    named,
    piece_scores,
    require_scored,
    tell_comparison,
    tell_unknown,
    total_costs,
    units_of,
)
from charloom.cli.streams import print_line, print_lines, tell
from charloom.cli.surprise import write_surprise
from charloom.settings import UnknownPolicy
from charloom.units import bits_from_nats, finite_or_none, perplexity_from_nats

if TYPE_CHECKING:
    from charloom.inference import Cost, LineScore, Scorer
    from charloom.model import TextModel
    from charloom.text import Sources


@click.command()
@click.argument("model", type=FilePath())
@click.argument("files", nargs=-1, type=SourceName(), metavar="[FILE|-]...")
@click.option(
    "--per", type=click.Choice(["line", "char", "file"]), help="Report one score per line, character or file."
)
@click.option(
    "--top", type=int, metavar="N", help="With --per line: print only the N most surprising lines, at the end."
)
@click.option(
    "--above", type=float, metavar="BITS", help="With --per line: print only lines of more bits per character."
)
@click.option(
    "--by",
    type=click.Choice(["mean", "peak"]),
    help="With --per line: rate a line by the mean of all its characters, or of its three most surprising ones.  "
    "[default: mean]",
)
@click.option("--carry", is_flag=True, help="With --per line: carry the state over from line to line.")
@click.option(
    "--prompt",
    default="",
    metavar="TEXT",
    help="Text to read before each text or line, without scoring it. With --carry, only before the first.",
)
@click.option(
    "--against",
    type=FilePath(),
    metavar="MODEL",
    help="Compare with this model, in bits per byte of UTF-8. --top and --above then rate lines by the difference.",
)
@click.option(
    "--dynamic-evaluation",
    is_flag=True,
    help="Also score a copy of the model that keeps learning from what it has read.",
)
@click.option(
    "--unknown",
    type=click.Choice(get_args(UnknownPolicy)),
    default="error",
    show_default=True,
    help="What to do with characters that the model does not know. Skipped ones are not scored.",
)
@click.option(
    "--html",
    type=FilePath(),
    metavar="PAGE",
    help="Also write a page: the text colored by surprise, with the model's predictions.",
)
@encoding_option
@threads_option
@json_option
def score(
    model: Path,
    files: tuple[str, ...],
    per: str | None,
    top: int | None,
    above: float | None,
    by: str | None,
    carry: bool,
    prompt: str,
    against: Path | None,
    dynamic_evaluation: bool,
    unknown: UnknownPolicy,
    html: Path | None,
    encoding: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Score a text: bits per character, lower is better.

    FILE is a file, a folder, a glob pattern, - for standard input (the default), or a name from `charloom corpora`.

    charloom reads a text in one pass and scores each character from those before it. With --per line it treats each
    line as a separate text, whose end counts as one character, and scores lines from a pipe as they arrive.

    \b
    charloom score book.safetensors another-book.txt
    charloom score book.safetensors chapter.txt --per line --top 10
    tail -f app.log | charloom score app.safetensors - --per line --by peak --above 9
    charloom score english.safetensors letters.txt --per line --against french.safetensors
    charloom score book.safetensors chapter.txt --html chapter.html
    """
    _require_sense(per, top, above, by, carry, prompt, against, dynamic_evaluation, html)
    require_encoding(encoding)
    set_threads(threads)

    from charloom.artifacts import InputFiles, Output
    from charloom.inference import settings_for
    from charloom.model import load
    from charloom.reports import PAGE
    from charloom.text import find_sources, read_standard_input

    loaded = load(model)
    models = [loaded] if against is None else [loaded, load(against)]
    scorers = [one.scorer(prompt, unknown) for one in models]
    settings = settings_for(scorers, encoding_or_default(encoding, [one.text.encoding for one in models]))
    names = [""] if against is None else [str(model), str(against)]
    tell_all = partial(_tell_all, names, scorers, unknown)
    tell_all()  # of the prompt
    tell_comparison(scorers)
    files = files or ("-",)
    if dynamic_evaluation:  # which reads a text twice
        sources = find_sources(files, settings, read_standard_input() if "-" in files else None)
        for notice in sources.notices:
            tell(notice)
        # First, since it stops at what scores of lines pass over.
        adapted = _adapted_nats(loaded, sources, settings.encoding, unknown)
        found = [Input(file.name, file.chunks, settings) for file in sources.files]
        costs = total_costs(scorers, found)
        require_scored(found, costs)
        _print_total(sources.name, costs, as_json, adapted=adapted)
    else:
        found = inputs(files, settings)
        if per == "line":
            figure = "peak_bits" if by == "peak" else "bits_per_char" if against is None else "ratio_bits_per_byte"
            as_text = as_json_line if as_json else partial(_line_text, figure)
            _print_lines(scorers, found, Lines(above, top, as_text), carry, figure)
        elif per == "char":
            _print_characters(scorers[0], found, as_json)
        elif per == "file":
            for one in found:
                _print_total(one.name, total_costs(scorers, [one]), as_json, of_file=True)
        elif html is not None:
            inputs_read = InputFiles([model, *(one.name for one in found)], standard_input="-" in files)
            page = Output(html, PAGE, inputs_read)
            _print_total(named(found), [write_surprise(scorers[0], model.name, found, page)], as_json)
        else:
            costs = total_costs(scorers, found)
            require_scored(found, costs)
            _print_total(named(found), costs, as_json)
    tell_all()


def _tell_all(names: Sequence[str], scorers: Sequence["Scorer"], unknown: UnknownPolicy) -> None:
    for name, scorer in zip(names, scorers, strict=True):
        tell_unknown(name, scorer, unknown)


def _require_sense(
    per: str | None,
    top: int | None,
    above: float | None,
    by: str | None,
    carry: bool,
    prompt: str,
    against: Path | None,
    dynamic_evaluation: bool,
    html: Path | None,
) -> None:
    """Refuses what means nothing together."""
    of_lines = {"--top": top is not None, "--above": above is not None, "--by": by is not None, "--carry": carry}
    for option, is_given in of_lines.items():
        if is_given and per != "line":
            raise click.UsageError(f"{option} is about lines: give --per line as well.")
    if top is not None and top < 1:
        raise click.UsageError(f"--top must be at least 1, got {top}.")
    if above is not None and math.isnan(above):
        raise click.UsageError("--above must be a number.")
    if dynamic_evaluation and (per is not None or prompt):
        raise click.UsageError(
            f"--dynamic-evaluation is about a whole text: it does not go with {'--per' if per else '--prompt'}."
        )
    if html is not None and (dynamic_evaluation or per is not None or against is not None):
        raise click.UsageError(
            "--html shows a whole text: it does not go with --per, --against or --dynamic-evaluation."
        )
    if against is not None and by is not None:
        raise click.UsageError("--by does not go with --against, where lines go by the two models' difference.")
    if against is not None and (dynamic_evaluation or per == "char"):
        raise click.UsageError(
            f"--against does not go with {'--dynamic-evaluation' if dynamic_evaluation else '--per char'}."
        )


def _print_total(
    name: str, costs: Sequence["Cost"], as_json: bool, *, of_file: bool = False, adapted: float | None = None
) -> None:
    cost = costs[0]
    nats = cost.nats_per_char
    if as_json:
        report: dict[str, Any] = {"file": name} if of_file else {}
        report |= {
            "characters": cost.characters,
            "nats_per_char": finite_or_none(nats),
            "bits_per_char": finite_or_none(bits_from_nats(nats)),
            "perplexity_per_char": finite_or_none(perplexity_from_nats(nats)),
            "unknown": cost.unknown,
        }
        if adapted is not None:
            report["dynamic_nats_per_char"] = finite_or_none(adapted)
            report["dynamic_bits_per_char"] = finite_or_none(bits_from_nats(adapted))
        print_line(json.dumps(report | _compared(costs)))
        return
    if not cost.characters:
        print_line(f"{name}: nothing to score")
        return
    print_line(
        f"{name}: {bits_from_nats(nats):.3f} bits ({nats:.4f} nats) per character on {cost.characters:,} "
        f"characters, perplexity {perplexity_from_nats(nats):.4g}"
    )
    if len(costs) > 1:
        ratio = _ratio(costs)
        print_line(
            f"{abs(ratio):.3f} bits per byte {'likelier' if ratio > 0 else 'less likely'} than by the other model: "
            f"{costs[0].bits_per_byte:.3f} against {costs[1].bits_per_byte:.3f}"
        )
    if adapted is not None:
        print_line(f"while it keeps learning: {bits_from_nats(adapted):.3f} bits ({adapted:.4f} nats) per character")


def _ratio(costs: Sequence["Cost"]) -> float:
    """Returns by how many bits per byte of UTF-8 the text is likelier by the first model than by the second."""
    return costs[1].bits_per_byte - costs[0].bits_per_byte


def _compared(costs: Sequence["Cost"]) -> dict[str, float | None]:
    """Returns what JSON has of a second model."""
    if len(costs) == 1:
        return {}
    return {
        "bits_per_byte": finite_or_none(costs[0].bits_per_byte),
        "against_bits_per_byte": finite_or_none(costs[1].bits_per_byte),
        "ratio_bits_per_byte": finite_or_none(_ratio(costs)),
    }


def _print_lines(scorers: Sequence["Scorer"], found: Sequence[Input], lines: Lines, carry: bool, figure: str) -> None:
    for scorer in scorers:
        scorer.warm_up()  # the first line from a pipe does not wait for it
    try:
        with before_ending(lines.finish):  # Ctrl-C is how one stops to watch
            for one in found:
                name = one.name if len(found) > 1 else None
                for batch in line_costs(scorers, one, carry=carry):
                    lines.add([_rated(name, row, figure) for row in batch])
    finally:
        lines.finish()


def _rated(name: str | None, row: Sequence["LineScore"], figure: str) -> tuple[float, dict[str, Any]]:
    """Returns a line's rating, by which it may be chosen, and what is printed of it."""
    costs = [line.cost for line in row]
    ratings = {"bits_per_char": costs[0].bits_per_char, "peak_bits": costs[0].peak_bits}
    rating = ratings[figure] if figure in ratings else -_ratio(costs)
    return -math.inf if math.isnan(rating) else rating, line_report(name, row[0]) | _compared(costs)


def _line_text(figure: str, row: dict[str, Any]) -> str:
    return line_text(row, row[figure])


def _print_characters(scorer: "Scorer", found: Sequence[Input], as_json: bool) -> None:
    """Prints a line for each character of the texts."""
    for one in found:
        name = {"file": one.name} if len(found) > 1 else {}
        index = 0
        for score in piece_scores(scorer, one):
            lines = []
            for character, bits in zip(units_of(score.text), score.bits.tolist(), strict=True):
                row = name | {"index": index, "char": character, "bits": finite_or_none(bits)}
                lines.append(json.dumps(row) if as_json else f"{bits:7.3f}  {index:>6}  {character}")
                index += 1
            print_lines(lines)


def _adapted_nats(model: "TextModel", sources: "Sources", encoding: str, unknown: UnknownPolicy) -> float:
    """Returns the nats per character of a text while the model keeps learning."""
    from charloom.runs import dynamic_score, token_stream
    from charloom.text import read_corpus

    corpus = read_corpus(sources, model.text.in_encoding(encoding))
    return dynamic_score(model, token_stream(model, corpus, unknown)).nats_per_char
