"""`charloom score`."""

import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from charloom.cli.interrupt import before_exit
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
    joined_names,
    line_costs,
    line_report,
    line_text,
    piece_scores,
    report_comparison,
    report_unknown,
    require_scored,
    total_costs,
    units_of,
)
from charloom.cli.streams import print_line, print_lines, print_message
from charloom.cli.surprise import write_surprise
from charloom.settings import TextSettings, UnknownPolicy
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
    "--above",
    type=float,
    metavar="BITS",
    help="With --per line: print only lines whose rating is above this many bits; see --by.",
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
    help="Also score a copy of the model that keeps learning from what it has scored.",
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
    help="Also write an HTML page: the text colored by surprise, with the model's predictions.",
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

    charloom reads a text in one pass and predicts each character from those before it. With --per line it treats each
    line as a separate text, whose end counts as one character. It scores lines from a pipe as they arrive.

    \b
    charloom score book.safetensors another-book.txt
    charloom score book.safetensors chapter.txt --per line --top 10
    tail -f app.log | charloom score app.safetensors - --per line --by peak --above 9 --unknown replace
    charloom score english.safetensors letters.txt --per line --against french.safetensors
    charloom score book.safetensors chapter.txt --html chapter.html
    """
    _require_compatible(per, top, above, by, carry, prompt, against, dynamic_evaluation, html)
    require_encoding(encoding)
    set_threads(threads)

    from charloom.inference import settings_for
    from charloom.model import load

    loaded = load(model)
    models = [loaded] if against is None else [loaded, load(against)]
    scorers = [each.scorer(prompt, unknown) for each in models]
    settings = settings_for(scorers, encoding_or_default(encoding, [each.text.encoding for each in models]))
    names = [""] if against is None else [str(model), str(against)]
    report_all_unknown = partial(_report_all_unknown, names, scorers, unknown)
    report_all_unknown()  # those in the prompt
    report_comparison(scorers)
    files = files or ("-",)
    if dynamic_evaluation:
        _print_dynamic_evaluation(loaded, scorers[0], files, settings, unknown, as_json)
    else:
        texts = inputs(files, settings)
        if per == "line":
            figure = "peak_bits" if by == "peak" else "bits_per_char" if against is None else "ratio_bits_per_byte"
            as_text = as_json_line if as_json else partial(_line_text, figure)
            _print_lines(scorers, texts, Lines(above, top, as_text), carry, figure)
        elif per == "char":
            _print_characters(scorers[0], texts, as_json)
        elif per == "file":
            for text in texts:
                _print_total(text.name, total_costs(scorers, [text]), as_json, of_file=True)
        elif html is not None:
            _print_total(joined_names(texts), [_write_page(html, model, scorers[0], texts, files)], as_json)
        else:
            costs = total_costs(scorers, texts)
            require_scored(texts, costs)
            _print_total(joined_names(texts), costs, as_json)
    report_all_unknown()


def _print_dynamic_evaluation(
    model: "TextModel",
    scorer: "Scorer",
    files: Sequence[str],
    settings: TextSettings,
    unknown: UnknownPolicy,
    as_json: bool,
) -> None:
    """Prints both scores of a text: the model's, and that of a copy that keeps learning."""
    from charloom.text import find_sources, read_standard_input

    # The text is read twice, so standard input is kept in memory.
    sources = find_sources(files, settings, read_standard_input() if "-" in files else None)
    for notice in sources.notices:
        print_message(notice)
    # First, because it refuses lines that the ordinary score only reports and skips.
    dynamic_nats = _dynamic_nats(model, sources, settings.encoding, unknown)
    texts = [Input(file.name, file.chunks, settings) for file in sources.files]
    costs = total_costs([scorer], texts)
    require_scored(texts, costs)
    _print_total(sources.name, costs, as_json, dynamic_nats=dynamic_nats)


def _write_page(html: Path, model: Path, scorer: "Scorer", texts: Sequence[Input], files: Sequence[str]) -> "Cost":
    """Writes the page of `--html`, and returns the cost of the texts."""
    from charloom.artifacts import InputFiles, Output
    from charloom.reports import PAGE

    inputs_read = InputFiles([model, *(text.name for text in texts)], standard_input="-" in files)
    return write_surprise(scorer, model.name, texts, Output(html, PAGE, inputs_read))


def _report_all_unknown(names: Sequence[str], scorers: Sequence["Scorer"], unknown: UnknownPolicy) -> None:
    for name, scorer in zip(names, scorers, strict=True):
        report_unknown(name, scorer, unknown)


def _require_compatible(
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
    """Refuses options that cannot be combined."""
    for_lines = {"--top": top is not None, "--above": above is not None, "--by": by is not None, "--carry": carry}
    for option, is_given in for_lines.items():
        if is_given and per != "line":
            raise click.UsageError(f"{option} applies to lines: give --per line as well.")
    if top is not None and top < 1:
        raise click.UsageError(f"--top must be at least 1, got {top}.")
    if above is not None and math.isnan(above):
        raise click.UsageError("--above must be a number.")
    if dynamic_evaluation and (per is not None or prompt):
        raise click.UsageError(
            f"--dynamic-evaluation scores a whole text: it cannot be combined with {'--per' if per else '--prompt'}."
        )
    if html is not None and (dynamic_evaluation or per is not None or against is not None):
        raise click.UsageError(
            "--html shows a whole text: it cannot be combined with --per, --against or --dynamic-evaluation."
        )
    if against is not None and by is not None:
        raise click.UsageError(
            "--by cannot be combined with --against, which rates lines by the difference between the two models."
        )
    if against is not None and (dynamic_evaluation or per == "char"):
        raise click.UsageError(
            f"--against cannot be combined with {'--dynamic-evaluation' if dynamic_evaluation else '--per char'}."
        )


def _print_total(
    name: str, costs: Sequence["Cost"], as_json: bool, *, of_file: bool = False, dynamic_nats: float | None = None
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
        if dynamic_nats is not None:
            report["dynamic_nats_per_char"] = finite_or_none(dynamic_nats)
            report["dynamic_bits_per_char"] = finite_or_none(bits_from_nats(dynamic_nats))
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
            f"{abs(ratio):.3f} bits per byte {'likelier' if ratio > 0 else 'less likely'} than under the other model: "
            f"{costs[0].bits_per_byte:.3f} against {costs[1].bits_per_byte:.3f}"
        )
    if dynamic_nats is not None:
        print_line(
            f"with dynamic evaluation: {bits_from_nats(dynamic_nats):.3f} bits ({dynamic_nats:.4f} nats) per character"
        )


def _ratio(costs: Sequence["Cost"]) -> float:
    """Returns how many bits per byte of UTF-8 the text is likelier under the first model than under the second."""
    return costs[1].bits_per_byte - costs[0].bits_per_byte


def _compared(costs: Sequence["Cost"]) -> dict[str, float | None]:
    """Returns the JSON values of a comparison with a second model; nothing without one."""
    if len(costs) == 1:
        return {}
    return {
        "bits_per_byte": finite_or_none(costs[0].bits_per_byte),
        "against_bits_per_byte": finite_or_none(costs[1].bits_per_byte),
        "ratio_bits_per_byte": finite_or_none(_ratio(costs)),
    }


def _print_lines(scorers: Sequence["Scorer"], texts: Sequence[Input], lines: Lines, carry: bool, figure: str) -> None:
    for scorer in scorers:
        scorer.warm_up()  # so that the first line from a pipe does not wait for compilation
    try:
        with before_exit(lines.finish):  # a user who watches a log stops with Ctrl-C
            for text in texts:
                name = text.name if len(texts) > 1 else None
                for batch in line_costs(scorers, text, carry=carry):
                    lines.add([_rated(name, row, figure) for row in batch])
    finally:
        lines.finish()


def _rated(name: str | None, row: Sequence["LineScore"], figure: str) -> tuple[float, dict[str, Any]]:
    """Returns a line's rating, which --top and --above use, and the values to print."""
    costs = [line.cost for line in row]
    ratings = {"bits_per_char": costs[0].bits_per_char, "peak_bits": costs[0].peak_bits}
    rating = ratings[figure] if figure in ratings else -_ratio(costs)
    return -math.inf if math.isnan(rating) else rating, line_report(name, row[0]) | _compared(costs)


def _line_text(figure: str, row: dict[str, Any]) -> str:
    return line_text(row, row[figure])


def _print_characters(scorer: "Scorer", texts: Sequence[Input], as_json: bool) -> None:
    """Prints a line for each character of the texts."""
    for text in texts:
        name = {"file": text.name} if len(texts) > 1 else {}
        index = 0
        for score in piece_scores(scorer, text):
            lines = []
            for character, bits in zip(units_of(score.text), score.bits.tolist(), strict=True):
                row = name | {"index": index, "char": character, "bits": finite_or_none(bits)}
                lines.append(json.dumps(row) if as_json else f"{bits:7.3f}  {index:>6}  {character}")
                index += 1
            print_lines(lines)


def _dynamic_nats(model: "TextModel", sources: "Sources", encoding: str, unknown: UnknownPolicy) -> float:
    """Returns the nats per character of a text for a model that keeps learning from it."""
    from charloom.runs import dynamic_score, token_stream
    from charloom.text import read_corpus

    corpus = read_corpus(sources, model.text.in_encoding(encoding))
    return dynamic_score(model, token_stream(model, corpus, unknown)).nats_per_char
