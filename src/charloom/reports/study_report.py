"""The report on studies: every experiment beside what was published of it, one page for all."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from charloom.reports.pages import rendered
from charloom.reports.pictures import Picture, batching_diagram, loss_curves, probability_bars
from charloom.reports.study_figures import accuracy_text, bits_table, loss_text, sentences
from charloom.units import format_seconds

_PREVIEW_COLUMNS = ("texts", "inputs", "target_texts", "targets")


def study_report(results: Mapping[str, Any], about: Mapping[str, Mapping[str, str]]) -> str:
    """Returns a self-contained HTML page.

    Args:
        results: what `results.json` holds.
        about: of each study, by name, its `title`, a `note`, and the `source` where it was published.
    """
    filters: dict[str, Callable[..., Any]] = {
        "seconds": format_seconds,
        "visible": _visible,
        "nats": loss_text,
        "accuracy": accuracy_text,
        "ids": _ids,
        "quoted": repr,
    }
    studies = [
        {
            "name": name,
            **about[name],
            "experiments": [_experiment(name, experiment, experiments) for experiment in experiments],
            "bits": bits_table(experiments),
        }
        for name, experiments in results["studies"].items()
    ]
    return rendered(
        "studies.html.j2",
        filters,
        studies=studies,
        machine=results["machine"],
        version=results["version"],
        run=results["run"],
    )


def _experiment(study: str, name: str, experiments: Mapping[str, Any]) -> dict[str, Any]:
    figures = experiments[name]
    preview, samples = figures["preview"], figures["samples"]
    return {
        "id": f"{study}-{name}",
        "name": name,
        "figures": figures,
        "published_loss": _published_loss(figures),
        "sentences": sentences(name, experiments),
        "facts": list(_facts(figures)),
        "diagram": batching_diagram(figures["batching"], preview["texts"], preview["target_texts"]),
        "curves": _curves(f"{study}/{name}", figures),
        "rows": list(zip(*(preview[part] for part in _PREVIEW_COLUMNS), strict=True)),
        "predictions": [sample for sample in samples if sample["kind"] == "prediction"],
        "pieces": [sample for sample in samples if sample["kind"] == "piece"],
        "temperatures": [sample for sample in samples if sample["kind"] == "temperature"],
        "texts": _texts(samples),
        "variants": [
            {"name": variant.replace("_", " "), "figures": one, "texts": _texts(one["samples"])}
            for variant, one in figures["variants"].items()
        ],
    }


def _published_loss(figures: Mapping[str, Any]) -> str:
    """Returns the published loss of the epoch that the run ends with."""
    published, epochs = figures["published_losses"], len(figures["losses"])
    return loss_text(published[epochs - 1]) if published and epochs <= len(published) else ""


def _texts(samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [_with_bars(sample) for sample in samples if sample["kind"] == "text"]


def _with_bars(sample: Mapping[str, Any]) -> dict[str, Any]:
    if "space_probabilities" not in sample:
        return dict(sample)
    bars = probability_bars("Probability of a space", sample["text"][1:], sample["space_probabilities"])
    return dict(sample, bars=bars)


def _facts(figures: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yields what it is, the figure here, and the published one."""
    published, batching = figures["published"], figures["batching"]

    def beside(value: Any, form: str = ",") -> str:
        return "" if value is None else format(value, form)

    parameters = beside(published.get("parameters"))
    if published.get("parameters_computed"):
        parameters += " (computed from its description)"
    elif "parameters_about" in published:
        parameters = f"about {published['parameters_about']:,}"
    yield "parameters", f"{figures['parameters']:,}", parameters
    if "rows" in batching:
        yield "rows per epoch", f"{batching['rows']:,}", beside(published.get("rows"))
    yield "steps per epoch", f"{batching['steps_per_epoch']:,}", ""
    losses = figures["losses"]
    yield f"training loss, epoch {len(losses)}", loss_text(losses[-1]), _published_loss(figures)
    if figures["held_out_characters"]:
        heard = published.get("held_out_loss")
        yield (
            f"held-out loss, epoch {len(losses)}",
            loss_text(figures["held_out_losses"][-1]),
            f"{heard['loss']} after epoch {heard['epoch']}" if heard else "",
        )
    which = "median accuracy" if "seeds" in figures else "training accuracy"
    yield which, accuracy_text(figures), beside(published.get("accuracy"), ".2f")
    if "accuracy" in published and len(figures.get("accuracies", ())) > 1:
        yield "training accuracy by epoch", " ".join(f"{one:.2f}" for one in figures["accuracies"]), ""
    seconds = published.get("seconds_per_epoch")
    yield (
        "seconds per epoch",
        f"{figures['seconds_per_epoch']:.3g}",
        f"{statistics.median(seconds):g}" if seconds else "",
    )
    yield "training, in all", format_seconds(figures["training_seconds"]), ""
    if figures["peak_memory_bytes"] is not None:
        yield "most memory so far", f"{figures['peak_memory_bytes'] / 1e6:,.0f} MB", ""


def _curves(title: str, figures: Mapping[str, Any]) -> Picture | None:
    curves = {"here": figures["losses"]}
    if figures["published_losses"]:
        curves["published"] = figures["published_losses"]
    if figures["keras"]:
        curves["Keras 3"] = figures["keras"]["losses"]
    if figures["held_out_characters"]:
        curves["held out"] = figures["held_out_losses"]
    curves |= {name.replace("_", " "): variant["losses"] for name, variant in figures["variants"].items()}
    if not any(value is not None for values in curves.values() for value in values):
        return None
    return loss_curves(f"Loss of {title} by epoch", curves)


def _visible(text: str) -> str:
    """Returns `text` with a mark where a line ends, for texts of a line."""
    return text.replace("\n", "⏎")


def _ids(values: Sequence[int], most: int = 12) -> str:
    """Returns the first of `values` as people write a list."""
    shown = ", ".join(map(str, values[:most]))
    return f"{shown}, …" if len(values) > most else shown
