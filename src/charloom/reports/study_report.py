"""The report on studies: one page that shows every experiment next to its published figures."""

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
        results: the content of `results.json`.
        about: the `title`, a `note` and the published `source` of each study, by its name.
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
        "comparison": list(_comparison(figures)),
        "diagram": batching_diagram(figures["batching"], preview["texts"], preview["target_texts"]),
        "curves": _curves(f"{study}/{name}", figures),
        "rows": list(zip(*(preview[column] for column in _PREVIEW_COLUMNS), strict=True)),
        "predictions": [sample for sample in samples if sample["kind"] == "prediction"],
        "pieces": [sample for sample in samples if sample["kind"] == "piece"],
        "temperatures": [sample for sample in samples if sample["kind"] == "temperature"],
        "texts": _texts(samples),
        "variants": [
            {"name": variant.replace("_", " "), "figures": of_variant, "texts": _texts(of_variant["samples"])}
            for variant, of_variant in figures["variants"].items()
        ],
    }


def _published_loss(figures: Mapping[str, Any]) -> str:
    """Returns the published loss of the epoch with which the run ends."""
    published, epochs = figures["published_losses"], len(figures["losses"])
    return loss_text(published[epochs - 1]) if published and epochs <= len(published) else ""


def _texts(samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [_with_bars(sample) for sample in samples if sample["kind"] == "text"]


def _with_bars(sample: Mapping[str, Any]) -> dict[str, Any]:
    if "space_probabilities" not in sample:
        return dict(sample)
    bars = probability_bars("Probability of a space", sample["text"][1:], sample["space_probabilities"])
    return dict(sample, bars=bars)


def _comparison(figures: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yields rows of a label, the figure here, and the published figure."""
    published, batching = figures["published"], figures["batching"]

    def formatted(value: Any, format_spec: str = ",") -> str:
        return "" if value is None else format(value, format_spec)

    parameters = formatted(published.get("parameters"))
    if published.get("parameters_computed"):
        parameters += " (computed from its description)"
    elif "parameters_about" in published:
        parameters = f"about {published['parameters_about']:,}"
    yield "parameters", f"{figures['parameters']:,}", parameters
    if "rows" in batching:
        yield "rows per epoch", f"{batching['rows']:,}", formatted(published.get("rows"))
    yield "steps per epoch", f"{batching['steps_per_epoch']:,}", ""
    losses = figures["losses"]
    yield f"training loss, epoch {len(losses)}", loss_text(losses[-1]), _published_loss(figures)
    if figures["held_out_characters"]:
        held_out = published.get("held_out_loss")
        yield (
            f"held-out loss, epoch {len(losses)}",
            loss_text(figures["held_out_losses"][-1]),
            f"{held_out['loss']} after epoch {held_out['epoch']}" if held_out else "",
        )
    label = "median accuracy" if "seeds" in figures else "training accuracy"
    yield label, accuracy_text(figures), formatted(published.get("accuracy"), ".2f")
    if "accuracy" in published and len(figures.get("accuracies", ())) > 1:
        yield "training accuracy by epoch", " ".join(f"{accuracy:.2f}" for accuracy in figures["accuracies"]), ""
    seconds = published.get("seconds_per_epoch")
    yield (
        "seconds per epoch",
        f"{figures['seconds_per_epoch']:.3g}",
        f"{statistics.median(seconds):g}" if seconds else "",
    )
    yield "total training time", format_seconds(figures["training_seconds"]), ""
    if figures["peak_memory_bytes"] is not None:
        yield "peak memory so far", f"{figures['peak_memory_bytes'] / 1e6:,.0f} MB", ""


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
    """Returns `text` on one line, with a mark for each line end."""
    return text.replace("\n", "⏎")


def _ids(values: Sequence[int], max_count: int = 12) -> str:
    """Returns the first of `values` as a list for people."""
    shown = ", ".join(map(str, values[:max_count]))
    return f"{shown}, …" if len(values) > max_count else shown
