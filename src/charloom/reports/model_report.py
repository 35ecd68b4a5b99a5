"""The report page of a model, made from plain values."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from charloom.reports.pages import rendered
from charloom.reports.pictures import character_map, training_curves

_STEPS = 4


def model_report(values: Mapping[str, Any]) -> str:
    """Returns a self-contained HTML page of the values that `charloom.report.report` collects."""
    text = values["text"]
    return rendered(
        "model.html.j2",
        curves=training_curves(values["history"]) if len(values["history"]) > 1 else None,
        map=character_map(values["characters"]),
        units=[]
        if text is None
        else [dict(unit, runs=list(_runs(unit["text"], unit["outputs"]))) for unit in text["units"]],
        **values,
    )


def _runs(text: str, outputs: Sequence[float]) -> Iterator[tuple[str, str]]:
    """Yields pieces of `text` for which the unit's output is about the same, each with its style."""
    steps = [round(_STEPS * output) for output in outputs]
    for step, run in groupby(zip(steps, text, strict=True), key=lambda pair: pair[0]):
        style = f"{'up' if step > 0 else 'down'}{abs(step)}" if step else "none"
        yield style, "".join(character for _, character in run).replace("\n", "⏎\n")
