"""Describes a model, for people and as JSON values."""

from typing import TYPE_CHECKING, Any

from charloom.kernels import reference_reason
from charloom.printable import one_line, shortened
from charloom.units import bits_from_nats

if TYPE_CHECKING:
    from charloom.model import TextModel
    from charloom.settings import NetworkSettings


def metadata(model: "TextModel") -> dict[str, Any]:
    """Returns what identifies a model, as JSON values."""
    vocabulary = model.vocabulary
    return {
        "format_version": model.format_version,
        "cell": model.settings.cell,
        "layers": model.settings.layers,
        "hidden": model.settings.hidden,
        "embedding": model.settings.embedding if model.settings.inputs == "embedding" else None,
        "parameters": model.network.parameters,
        "vocabulary": vocabulary.characters if vocabulary.units == "chars" else None,
        "units": vocabulary.units,
        "trained_on": dict(model.trained_on),
    }


def summary(model: "TextModel") -> dict[str, str]:
    """Returns a summary of a model for people: a value for each label."""
    settings, vocabulary, trained_on, training = model.settings, model.vocabulary, model.trained_on, model.training
    lines = {
        "model": f"{settings.cell}, {settings.layers} × {settings.hidden}, "
        f"{_inputs(settings)}{_unusual(settings)}, {model.network.parameters:,} parameters",
        "vocabulary": f"{vocabulary.size:,} {'characters' if vocabulary.units == 'chars' else 'bytes'}"
        + (f": {vocabulary.characters!r}" if 0 < len(vocabulary.characters) <= 200 else "")
        + (", lowercase" if model.text.lowercase else ""),
    }
    if model.text.delimiter is not None:
        lines["records"] = "one per line" if model.text.record_end == "\n" else f"between {model.text.delimiter!r}"
    by_layer = [
        reference_reason(settings.cell, settings.hidden, activation) for activation in settings.cell_activations
    ]
    if reasons := sorted({reason for reason in by_layer if reason}):
        where = "" if all(by_layer) else " in some layers"
        lines["kernels"] = f"reference{where}: {', '.join(reasons)}"
    if trained_on.keys() >= {"name", "characters"}:
        lines["trained on"] = f"{shortened(trained_on['name'])}, {trained_on['characters']:,} characters"
    if "sha256" in trained_on:
        lines["SHA-256"] = one_line(trained_on["sha256"])
    if model.window is not None:
        lines["window"] = f"{model.window} characters, read again for each new character"
    if training.keys() >= {"kept_step", "steps"}:
        lines["best"] = f"step {training['kept_step']:,} of {training['steps']:,}"
    if training.keys() >= {"validation_nats_per_char", "validation_chars"}:
        nats = training["validation_nats_per_char"]
        lines["validation"] = (
            f"{bits_from_nats(nats):.3f} bits ({nats:.4f} nats) per character on "
            f"{training['validation_chars']:,} held-out characters"
        )
    return lines


def _inputs(settings: "NetworkSettings") -> str:
    return f"embedding {settings.embedding}" if settings.inputs == "embedding" else f"{settings.inputs} inputs"


def _unusual(settings: "NetworkSettings") -> str:
    """Returns the settings that differ from the usual ones, each after a comma."""
    gates, last = settings.gate_activation.replace("_", " "), settings.cell_activations[-1]
    remarks = [
        (settings.gate_activation != "sigmoid", f"{gates} gates"),
        (settings.cell_activation != "tanh", f"{settings.cell_activation} cells"),
        (last != settings.cell_activation, f"{last} in the last cell"),
        (settings.head != "dense", f"outputs used as {settings.head}"),
    ]
    return "".join(f", {remark}" for is_unusual, remark in remarks if is_unusual)
