#!/usr/bin/env python3
"""Gathers results into docs/results.json, and writes docs/results.md from it.

`scripts/results.py DIR...` first takes the experiments of each DIR/results.json (as `charloom reproduce --full` left
it) into docs/results.json; without DIR only the page is written again. Experiments may come from several machines,
and keep theirs.
"""

import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from charloom.artifacts import write_bytes
from charloom.reports.study_figures import accuracy_text, bits_table, loss_text, sentences
from charloom.studies import STUDIES
from charloom.units import format_seconds

DOCS = Path(__file__).parent.parent / "docs"
RESULTS, PAGE = DOCS / "results.json", DOCS / "results.md"

Json = dict[str, Any]


def main() -> None:
    """Gathers, and writes the page."""
    kept: Json = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    for folder in sys.argv[1:]:
        kept = joined(kept, json.loads((Path(folder) / "results.json").read_text("utf-8")), folder)
    if not kept:
        sys.exit("no results yet: name a folder that `charloom reproduce --full` made")
    write_bytes(RESULTS, (json.dumps(kept, indent=1, ensure_ascii=False) + "\n").encode())
    write_bytes(PAGE, ("\n".join(page(kept)) + "\n").encode())


def joined(kept: Json, more: Json, folder: str) -> Json:
    """Returns `kept` with the experiments of `more`, a full run of the same version and seed, all in their order.

    The machine of the whole is that of `more`; each experiment has its own.
    """
    if more["run"]["mode"] != "full":
        sys.exit(f"{folder} holds a {more['run']['mode']} run, no full one")
    for what in ("version", "results_version", "run"):
        if kept and kept[what] != more[what]:
            sys.exit(f"{folder} has another {what} than {RESULTS}")
    found = {name: {**kept.get("studies", {}).get(name, {}), **more["studies"].get(name, {})} for name in STUDIES}
    # Previews show the corpora, whose texts are not the repository's.
    studies = {
        name: {
            experiment: without_previews(found[name][experiment])
            for experiment in study.experiments
            if experiment in found[name]
        }
        for name, study in STUDIES.items()
        if found[name]
    }
    return {**more, "studies": studies}


def without_previews(figures: Json) -> Json:
    """Returns an experiment's figures, and its variants', without the preview of its data."""
    variants = {name: without_previews(one) for name, one in figures.get("variants", {}).items()}
    kept = {name: value for name, value in figures.items() if name != "preview"}
    return kept | {"variants": variants} if variants else kept


def page(results: Json) -> Iterator[str]:
    """Yields the page's lines."""
    yield "# The experiments, rerun"
    yield ""
    yield (
        f"Made by `make results` from `docs/results.json`: charloom {results['version']}, seed "
        f"{results['run']['seed']}, each experiment by `charloom reproduce STUDY/EXPERIMENT --full`. Losses are in "
        "nats per character, a mean over an epoch while the weights move, as Keras shows it. First weights were drawn "
        "by JAX then and are by NumPy now, so that the same seed comes to other figures, as another would. Seconds are "
        "medians; where a run shared its machine with other work they are more than it needs. `charloom reproduce` "
        "writes the whole "
        "report: layers, data, texts and curves."
    )
    missing = [
        f"{name}/{experiment}"
        for name, study in STUDIES.items()
        for experiment in study.experiments
        if experiment not in results["studies"].get(name, {})
    ]
    if missing:
        yield ""
        yield f"Not here yet: {', '.join(missing)}."
    for name, experiments in results["studies"].items():
        yield ""
        yield f"## {STUDIES[name].title}"
        yield ""
        if STUDIES[name].note:
            yield STUDIES[name].note
            yield ""
        yield from machines(experiments)
        yield ""
        yield "| experiment | parameters | epochs | loss | published | accuracy | s per epoch | published | kernels |"
        yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
        for experiment, figures in experiments.items():
            yield row(experiment, figures, figures)
            for variant, of_variant in figures["variants"].items():
                yield row(f"{experiment}, {variant.replace('_', ' ')}", of_variant, figures)
        yield from bits(experiments)
        yield ""
        for experiment, figures in experiments.items():
            yield from (f"- `{experiment}`: {sentence}" for sentence in remarks(experiment, figures, experiments))


def machines(experiments: Json) -> Iterator[str]:
    """Yields a line for each machine that the experiments ran on, with their names where there are several."""
    by_machine: dict[str, list[str]] = {}
    for experiment, figures in experiments.items():
        machine = figures["machine"]
        words = f"{machine['processor']}, {machine['cores']} cores, JAX {machine['jax']}"
        by_machine.setdefault(words, []).append(experiment)
    for words, names in by_machine.items():
        which = f" ({', '.join(names)})" if len(by_machine) > 1 else ""
        yield f"Machine{which}: {words}."


def row(name: str, figures: Json, experiment: Json) -> str:
    """Returns an experiment's line of the table."""
    published = experiment["published"]
    losses, published_losses = figures["losses"], experiment["published_losses"]
    seconds = published.get("seconds_per_epoch")
    cells = [
        name,
        f"{figures['parameters']:,}",
        len(losses),
        loss_text(losses[-1]),
        loss_text(published_losses[-1]) if published_losses else "",
        accuracy_text(figures),
        f"{figures['seconds_per_epoch']:.3g}",
        f"{statistics.median(seconds):g}" if seconds else "",
        " and ".join(sorted({layer["kernels"] for layer in figures["layers"]} - {None})),
    ]
    return f"| {' | '.join(map(str, cells))} |"


def bits(experiments: Json) -> Iterator[str]:
    """Yields the table of bits per character of the experiments that hold text out."""
    rows = bits_table(experiments)
    if not rows:
        return
    yield ""
    yield "By the final weights, accuracy and bits per character (per byte, in these texts):"
    yield ""
    yield "| experiment | accuracy, train | held out | bits, train | held out | from a zero state | training |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for one in rows:
        cold = "" if one["cold_bits"] is None else f"{one['cold_bits']:.3f}"
        yield (
            f"| {one['name']} | {one['train_accuracy']:.3f} | {one['accuracy']:.3f} | {one['train_bits']:.3f} "
            f"| {one['bits']:.3f} | {cold} | {format_seconds(one['seconds'])} |"
        )


def remarks(name: str, figures: Json, experiments: Json) -> Iterator[str]:
    """Yields what the figures of the experiment `name` say, a sentence each."""
    yield figures["lesson"]
    if figures["cut"]:
        yield f"A cut: {figures['cut']}."
    for label, one in {"": figures, **figures["variants"]}.items():
        for check in one["checks"]:
            verdict = "holds" if check["holds"] else "**does not hold**"
            yield f"{label.replace('_', ' ')}{': ' if label else ''}{check['check']}: {verdict}."
    yield from sentences(name, experiments)


if __name__ == "__main__":
    main()
