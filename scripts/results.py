#!/usr/bin/env python3
"""Collects results into docs/results.json, and generates docs/results.md from it.

`scripts/results.py DIR...` copies the experiments in each DIR/results.json, made by `charloom reproduce --full`, into
docs/results.json. Without DIR it only generates the page. Experiments may come from different machines; each one keeps
its machine.
"""

import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from charloom.artifacts import write_bytes
from charloom.reports.study_figures import accuracy_text, bits_table, loss_text, sentences
from charloom.studies import STUDIES, Experiment
from charloom.studies.checks import checks_of
from charloom.studies.experiment import published
from charloom.units import format_seconds

DOCS = Path(__file__).parent.parent / "docs"
RESULTS, PAGE = DOCS / "results.json", DOCS / "results.md"

Json = dict[str, Any]

_INTRODUCTION = """\
This page compares charloom's studies with the published figures they reproduce.
`make results` generates it from `docs/results.json`.

- Version {version}, seed {seed}. Each experiment ran with `charloom reproduce STUDY/EXPERIMENT --full`.
- Losses are in nats per character. A loss is the mean over an epoch during which the weights change, as in Keras.
- Seconds per epoch are medians. They are too high for runs that shared their machine with other work.
- These runs drew initial weights with JAX. charloom now uses NumPy, so the same seed gives different figures.

`charloom reproduce` makes a full report with layers, data, samples and curves.
[Studies](design/studies.md) explains the stateful experiments and the hypothesis about them."""


def main() -> None:
    """Collects results and generates the page."""
    kept: Json = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    for folder in sys.argv[1:]:
        kept = joined(kept, json.loads((Path(folder) / "results.json").read_text("utf-8")), folder)
    if not kept:
        sys.exit("There are no results yet. Name a folder that `charloom reproduce --full` made.")
    kept = with_current_texts(kept)
    write_bytes(RESULTS, (json.dumps(kept, indent=1, ensure_ascii=False) + "\n").encode())
    write_bytes(PAGE, ("\n".join(page(kept)) + "\n").encode())


def joined(kept: Json, more: Json, folder: str) -> Json:
    """Returns `kept` with the experiments of `more`, a full run of the same version and seed, in the studies' order.

    The machine of the result is that of `more`. Each experiment keeps its own.
    """
    if more["run"]["mode"] != "full":
        sys.exit(f"{folder} has results of a {more['run']['mode']} run, not of a full one.")
    for what in ("version", "results_version", "run"):
        if kept and kept[what] != more[what]:
            sys.exit(f"{folder} has another {what} than {RESULTS}.")
    found = {name: {**kept.get("studies", {}).get(name, {}), **more["studies"].get(name, {})} for name in STUDIES}
    # Previews quote the corpora, which do not belong in the repository.
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
    """Returns the figures of an experiment and of its variants without the preview of its data."""
    variants = {name: without_previews(one) for name, one in figures.get("variants", {}).items()}
    kept = {name: value for name, value in figures.items() if name != "preview"}
    return kept | {"variants": variants} if variants else kept


def with_current_texts(results: Json) -> Json:
    """Returns `results` with the descriptions and checks of the current studies."""

    def updated(figures: Json, experiment: Experiment, of_published: Json) -> Json:
        checks = [] if figures.get("cut") else checks_of(experiment, figures, of_published)
        texts = {"summary": experiment.summary, "lesson": experiment.lesson, "notes": list(experiment.notes)}
        return figures | texts | {"checks": checks}

    studies = {}
    for study, experiments in results["studies"].items():
        studies[study] = {}
        for name, figures in experiments.items():
            experiment = STUDIES[study].experiments[name]
            variants = {
                variant: updated(one, experiment.variant(variant), {}) for variant, one in figures["variants"].items()
            }
            of_published = published()[study]["experiments"].get(name, {})
            studies[study][name] = updated(figures, experiment, of_published) | {"variants": variants}
    return results | {"studies": studies}


def page(results: Json) -> Iterator[str]:
    """Yields the lines of the page."""
    yield "# Results of the studies"
    yield ""
    yield _INTRODUCTION.format(version=results["version"], seed=results["run"]["seed"])
    missing = [
        f"{name}/{experiment}"
        for name, study in STUDIES.items()
        for experiment in study.experiments
        if experiment not in results["studies"].get(name, {})
    ]
    if missing:
        yield ""
        yield f"Not run yet: {', '.join(missing)}."
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
            yield from (f"- `{experiment}`: {remark}" for remark in remarks(experiment, figures, experiments))
        yield from checks(experiments)


def machines(experiments: Json) -> Iterator[str]:
    """Yields one line per machine, with the names of its experiments if there are several machines."""
    by_machine: dict[str, list[str]] = {}
    for experiment, figures in experiments.items():
        machine = figures["machine"]
        words = f"{machine['processor']}, {machine['cores']} cores, JAX {machine['jax']}"
        by_machine.setdefault(words, []).append(experiment)
    for words, names in by_machine.items():
        which = f" ({', '.join(names)})" if len(by_machine) > 1 else ""
        yield f"Machine{which}: {words}."


def row(name: str, figures: Json, experiment: Json) -> str:
    """Returns the table row of an experiment."""
    of_published = experiment["published"]
    losses, published_losses = figures["losses"], experiment["published_losses"]
    seconds = of_published.get("seconds_per_epoch")
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
    """Yields the table of bits per character of the experiments with held-out text."""
    rows = bits_table(experiments)
    if not rows:
        return
    yield ""
    yield "Accuracy and bits per character of the final weights (in these texts a character is one byte):"
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
    """Yields what the experiment `name` shows."""
    yield figures["lesson"]
    if figures["cut"]:
        yield f"The run is shortened: {figures['cut']}."
    yield from sentences(name, experiments)


def checks(experiments: Json) -> Iterator[str]:
    """Yields the table of checks."""
    rows = [
        f"| {name}{', ' if label else ''}{label.replace('_', ' ')} | {check['check']} "
        f"| {'yes' if check['holds'] else '**no**'} |"
        for name, figures in experiments.items()
        for label, one in {"": figures, **figures["variants"]}.items()
        for check in one["checks"]
    ]
    if rows:
        yield from ("", "| experiment | check | passed |", "| --- | --- | --- |", *rows)


if __name__ == "__main__":
    main()
