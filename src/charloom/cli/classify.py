"""`charloom classify`."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

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
    inputs,
    joined_names,
    line_costs,
    line_text,
    report_comparison,
    report_unknown,
    require_scored,
    total_costs,
)
from charloom.cli.streams import print_line, print_lines
from charloom.printable import one_line
from charloom.units import finite_or_none

if TYPE_CHECKING:
    from charloom.inference import Cost


@click.command()
@click.argument("models", nargs=-1, required=True, type=FilePath(), metavar="MODEL MODEL...")
@click.option(
    "--text",
    "files",
    type=SourceName(),
    multiple=True,
    metavar="FILE|-",
    help="Text to classify.  [default: standard input]",
)
@click.option("--per", type=click.Choice(["line", "file"]), help="Classify each line or file separately.")
@encoding_option
@threads_option
@json_option
def classify(
    models: tuple[Path, ...],
    files: tuple[str, ...],
    per: str | None,
    encoding: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Classify a text by the model that fits it best.

    charloom compares the models by bits per byte of UTF-8. A character that a model does not know costs as much as one
    of all Unicode characters. The margin is the distance to the second best model.

    \b
    charloom classify english.safetensors french.safetensors german.safetensors --text letter.txt
    charloom classify benign.safetensors generated.safetensors --text domains.txt --per line --json
    """
    if len(models) < 2 or len(set(models)) < len(models):
        raise click.UsageError("classify compares models: give at least two different ones.")
    require_encoding(encoding)
    set_threads(threads)

    from charloom.inference import settings_for
    from charloom.model import load

    scorers = [load(model).scorer(unknown="replace") for model in models]
    report_comparison(scorers)
    encoding = encoding_or_default(encoding, [scorer.settings.encoding for scorer in scorers])
    texts = inputs(files or ("-",), settings_for(scorers, encoding))
    if per == "line":
        width = max(len(one_line(model.stem)) for model in models)
        for scorer in scorers:
            scorer.warm_up()
        for text in texts:
            name = {"file": text.name} if len(texts) > 1 else {}
            for batch in line_costs(scorers, text):
                rows = (
                    name | {"line": row[0].number, "text": row[0].shown} | _verdict(models, [line.cost for line in row])
                    for row in batch
                )
                print_lines(json.dumps(row) if as_json else _line_text(row, width) for row in rows)
    else:
        for group in [[text] for text in texts] if per == "file" else [texts]:
            costs = total_costs(scorers, group)
            if per is None:
                require_scored(group, costs)
            _print_verdict(group, _verdict(models, costs), as_json, of_file=per == "file")
    for model, scorer in zip(models, scorers, strict=True):
        report_unknown(str(model), scorer, "replace")


def _print_verdict(texts: Sequence[Input], verdict: dict[str, Any], as_json: bool, *, of_file: bool) -> None:
    margin = verdict["margin_bits_per_byte"]
    if as_json:
        print_line(json.dumps(({"file": texts[0].name} if of_file else {}) | verdict))
        return
    if margin is None:
        print_line(f"{joined_names(texts)}: nothing to classify")
        return
    print_line(f"{joined_names(texts)}: {verdict['model']}, by {margin:.3f} bits per byte")
    ranked = sorted((math.inf if bits is None else bits, model) for model, bits in verdict["bits_per_byte"].items())
    for bits, model in ranked:
        print_line(f"  {bits:7.3f}  {model}")


def _verdict(models: Sequence[Path], costs: Sequence["Cost"]) -> dict[str, Any]:
    """Returns the model that fits the text best, the margin to the second, and each model's cost."""
    bits = {str(model): cost.bits_per_byte for model, cost in zip(models, costs, strict=True)}
    # A model whose cost is not a number is never the best, unless all of them are like that.
    best, second = sorted(bits, key=lambda model: math.inf if math.isnan(bits[model]) else bits[model])[:2]
    return {
        "model": best,
        "unknown": {str(model): cost.unknown for model, cost in zip(models, costs, strict=True)},
        "margin_bits_per_byte": finite_or_none(bits[second] - bits[best]),
        "bits_per_byte": {model: finite_or_none(value) for model, value in bits.items()},
    }


def _line_text(row: dict[str, Any], width: int) -> str:
    return line_text(row, row["margin_bits_per_byte"], f"{one_line(Path(row['model']).stem):<{width}}  ")
