"""The report on studies: every rung beside what was published of it, one page for all."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from charloom.reports.pictures import Picture, framing_diagram, loss_curves, probability_bars
from charloom.reports.study_figures import bits_table, overwritten_state_sentence
from charloom.units import format_seconds

_PREVIEW_COLUMNS = ("texts", "inputs", "target_texts", "targets")


def study_report(results: Mapping[str, Any], titles: Mapping[str, str], sources: Mapping[str, str]) -> str:
    """Returns a self-contained HTML page.

    Args:
        results: what `results.json` holds.
        titles: of the studies, by name.
        sources: where each was published.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("charloom.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "seconds": format_seconds,
        "visible": _visible,
        "nats": _nats,
        "ids": _ids,
        "quoted": repr,
    }
    studies = [
        {
            "name": name,
            "title": titles[name],
            "source": sources[name],
            "rungs": [_rung(name, rung, figures) for rung, figures in rungs.items()],
            "bits": bits_table(rungs),
        }
        for name, rungs in results["studies"].items()
    ]
    page: str = environment.get_template("studies.html.j2").render(
        studies=studies, machine=results["machine"], version=results["version"], run=results["run"]
    )
    return page


def _rung(study: str, name: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    preview, samples = figures["preview"], figures["samples"]
    return {
        "id": f"{study}-{name}",
        "name": name,
        "figures": figures,
        "facts": list(_facts(figures)),
        "diagram": framing_diagram(figures["framing"], preview["texts"], preview["target_texts"]),
        "curves": _curves(f"{study}/{name}", figures),
        "rows": list(zip(*(preview[part] for part in _PREVIEW_COLUMNS), strict=True)),
        "predictions": [sample for sample in samples if sample["title"] == "prediction"],
        "pieces": [sample for sample in samples if sample["title"] == "random piece"],
        "temperatures": [_with_bars(sample) for sample in samples if "temperature" in sample],
        "texts": [_with_bars(sample) for sample in samples if _is_text(sample)],
        "variants": [_variant(variant, figures) for variant in figures["variants"].items()],
    }


def _is_text(sample: Mapping[str, Any]) -> bool:
    return sample["title"] not in ("prediction", "random piece") and "temperature" not in sample


def _with_bars(sample: Mapping[str, Any]) -> dict[str, Any]:
    chances = sample.get("space_probabilities")
    if not chances:
        return dict(sample, bars=None)
    return dict(sample, bars=probability_bars("probability of a space", sample["text"][1:], chances))


def _facts(figures: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yields what it is, the figure here, and the published one."""
    published, framing = figures["published"], figures["framing"]

    def beside(value: Any, form: str = ",") -> str:
        return "" if value is None else format(value, form)

    parameters = beside(published.get("parameters"))
    if published.get("parameters_computed"):
        parameters += " (computed from its description)"
    elif "parameters_about" in published:
        parameters = f"about {published['parameters_about']:,}"
    yield "parameters", f"{figures['parameters']:,}", parameters
    if "rows" in framing:
        yield "rows an epoch", f"{framing['rows']:,}", beside(published.get("rows"))
    yield "updates an epoch", f"{framing['updates_per_epoch']:,}", ""
    losses, published_losses = figures["losses"], figures["published_losses"]
    yield (
        f"training loss, epoch {len(losses)}",
        _nats(losses[-1]),
        _nats(published_losses[len(losses) - 1]) if published_losses and len(losses) <= len(published_losses) else "",
    )
    if figures["held_out_characters"]:
        heard = published.get("held_out_loss")
        yield (
            f"held-out loss, epoch {len(losses)}",
            _nats(figures["held_out_losses"][-1]),
            f"{heard['loss']} after epoch {heard['epoch']}" if heard else "",
        )
    if "accuracy_range" in figures:
        low, high = figures["accuracy_range"]
        here = f"{figures['accuracy']:.3f} ({low:.3f} to {high:.3f}, {figures['seeds']} seeds)"
        yield "median accuracy", here, beside(published.get("accuracy"), ".2f")
    else:
        yield "training accuracy", f"{figures['accuracy']:.3f}", beside(published.get("accuracy"), ".2f")
    seconds = published.get("seconds_per_epoch")
    yield (
        "seconds an epoch",
        f"{figures['seconds_per_epoch']:.3g}",
        f"{statistics.median(seconds):g}" if seconds else "",
    )
    yield "training, in all", format_seconds(figures["training_seconds"]), ""


def _curves(title: str, figures: Mapping[str, Any]) -> Picture | None:
    curves = {"here": figures["losses"]}
    if figures["published_losses"]:
        curves["published"] = figures["published_losses"]
    if figures["held_out_characters"]:
        curves["held out"] = figures["held_out_losses"]
    curves |= {name.replace("_", " "): variant["losses"] for name, variant in figures["variants"].items()}
    if not any(value is not None for values in curves.values() for value in values):
        return None
    return loss_curves(f"Loss of {title} by epoch", curves)


def _variant(item: tuple[str, Mapping[str, Any]], of: Mapping[str, Any]) -> dict[str, Any]:
    name, figures = item
    published = of["published_losses"]
    sentence = ""
    if name == "overwritten_state":
        sentence = overwritten_state_sentence(figures, of)
    return {
        "name": name.replace("_", " "),
        "figures": figures,
        "sentence": sentence,
        "published": published,
        "texts": [_with_bars(sample) for sample in figures["samples"] if _is_text(sample)],
    }


def _nats(loss: float | None) -> str:
    return "no number" if loss is None else f"{loss:.4f}"


def _visible(text: str) -> str:
    """Returns `text` with a mark where a line ends, for texts of a line."""
    return text.replace("\n", "⏎")


def _ids(values: Sequence[int], most: int = 12) -> str:
    """Returns the first of `values` as people write a list."""
    shown = ", ".join(map(str, values[:most]))
    return f"{shown}, …" if len(values) > most else shown
