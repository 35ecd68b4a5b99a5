"""Pictures as data URIs, each with a text alternative."""

import io
import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from charloom.units import bits_from_nats

_HERE, _PUBLISHED, _HELD_OUT, _OTHER = "#0b5394", "#c05600", "#38761d", "#7a7a7a"
_COLORS = {"here": _HERE, "published": _PUBLISHED, "held out": _HELD_OUT}
_MIN_BAR = 0.01

Values = Sequence[float | None]


@dataclass(frozen=True)
class Picture:
    """An image and its text alternative.

    Attributes:
        source: a data URI.
        text: what the image shows, for people who cannot see it.
    """

    source: str
    text: str


def loss_curves(title: str, curves: Mapping[str, Values]) -> Picture:
    """Returns curves of the loss of each epoch, in nats per character, without epochs whose loss is None."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    others = iter(("--", ":", "-."))
    for name, values in curves.items():
        epochs = [epoch for epoch, value in enumerate(values, 1) if value is not None]
        losses = [value for value in values if value is not None]
        style = "-" if name in _COLORS else next(others)
        marker = "o" if len(losses) <= 12 else None  # a single epoch needs a marker; many would clutter the line
        axes.plot(epochs, losses, style, color=_COLORS.get(name, _OTHER), marker=marker, markersize=3, label=name)
    axes.set_xlabel("epoch")
    axes.set_ylabel("nats per character")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return Picture(_svg_of(figure, title), f"{title}. {_in_words(curves)}")


def training_curves(history: Sequence[Mapping[str, float | None]]) -> Picture:
    """Returns curves of the training and held-out loss at each evaluation, in bits per character."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    sentences = []
    for name, key, color, style in (
        ("training", "train_nats_per_char", _HERE, "--"),
        ("held out", "validation_nats_per_char", _HELD_OUT, "-"),
    ):
        points = [(entry["step"], bits_from_nats(nats)) for entry in history if (nats := entry[key]) is not None]
        steps, bits = zip(*points, strict=True) if points else ((), ())
        axes.plot(steps, bits, style, color=color, marker="o", markersize=3, label=name)
        if bits:
            sentences.append(
                f"{name}: from {bits[0]:.3f} to {bits[-1]:.3f} bits per character, at best {min(bits):.3f}."
            )
    axes.set_xlabel("step")
    axes.set_ylabel("bits per character")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return Picture(_svg_of(figure, "training"), f"Curves of {len(history)} evaluations. {' '.join(sentences)}")


def character_map(characters: Sequence[Mapping[str, Any]]) -> Any:
    """Returns an SVG element with each character at its position; `x` and `y` may have any scale."""
    from markupsafe import Markup

    width, height, margin = 640, 420, 24

    def scaled(name: str, size: int) -> list[float]:
        values = [float(character[name]) for character in characters]
        low, spread = min(values), (max(values) - min(values)) or 1.0
        return [margin + (value - low) / spread * (size - 2 * margin) for value in values]

    drawn = "".join(
        f'<text x="{x:.1f}" y="{y + 5:.1f}" class="{_kind(entry["character"])}">{_glyph(entry["character"])}'
        f"<title>{escape(repr(entry['character']))}</title></text>"
        for entry, x, y in zip(characters, scaled("x", width), scaled("y", height), strict=True)
    )
    label = f"A map of {len(characters)} characters by the first two principal components of their embeddings."
    return Markup(f'<svg class="map" viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{drawn}</svg>')


def _kind(character: str) -> str:
    if character.isupper():
        return "upper"
    if character.isalpha():
        return "lower"
    return "digit" if character.isdigit() else "other"


def probability_bars(title: str, characters: str, probabilities: Sequence[float]) -> Picture:
    """Returns a bar for each of `characters`, as high as its probability."""
    width, height = 6, 60
    heights = [max(probability, _MIN_BAR) * height for probability in probabilities]
    bars = "".join(
        f'<rect x="{index * width}" y="{height - bar:.1f}" width="{width - 1}" height="{bar:.1f}"/>'
        for index, bar in enumerate(heights)
    )
    svg = _svg(len(probabilities) * width, height, f'<g fill="{_HERE}">{bars}</g>')
    highest = max(range(len(probabilities)), key=probabilities.__getitem__)
    text = (
        f"{title}: mean {sum(probabilities) / len(probabilities):.2f}, "
        f"highest {probabilities[highest]:.2f} before character {highest + 1}, {characters[highest]!r}."
    )
    return Picture(_data_uri(svg), text)


def batching_diagram(batching: Mapping[str, Any], rows: Sequence[str], targets: Sequence[str]) -> Picture:
    """Returns a diagram of the first batch: boxes for the characters that are read, and the targets in color."""
    every = batching["targets"] == "every"
    shown = min(batching["length"], 12)
    carried = batching["kind"] in ("StatefulRows", "ContiguousStreams")
    box, left = 22, 64
    parts = []
    for number, (row, target) in enumerate(zip(rows[:3], targets[:3], strict=True)):
        y = 10 + number * 46
        parts.append(f'<text x="0" y="{y + 16}" class="side">row {number}</text>')
        cells = [(character, False) for character in row[-shown:]]
        if not every:
            cells.append((target[-1:], True))
        for column, (character, is_target) in enumerate(cells):
            x = left + column * box + (10 if is_target else 0)
            kind = "target" if is_target else "read"
            parts.append(_box(x, y, box, kind, character))
        if every:
            for column, character in enumerate(target[-shown:]):
                parts.append(
                    f'<text x="{left + column * box + box / 2}" y="{y + 35}" class="below">{_glyph(character)}</text>'
                )
    width = left + (shown + 2) * box
    svg = _svg(width, 150, f"<style>{_DIAGRAM_STYLE}</style>{''.join(parts)}")
    text = (
        f"The first three rows of {batching['length']} input characters each"
        + (f" (only the last {shown} are drawn)" if shown < batching["length"] else "")
        + (", with the target below each" if every else ", followed by the target")
        + (". The state is carried from each window of a row to the next." if carried else ". Each row is independent.")
    )
    return Picture(_data_uri(svg), text)


_DIAGRAM_STYLE = (
    "text{font-family:ui-monospace,monospace;font-size:13px;text-anchor:middle;fill:#222}"
    ".side{text-anchor:start;font-size:12px}"
    f".below{{fill:{_PUBLISHED}}}"
    "rect{stroke:#222;stroke-width:1}.read{fill:#e8eef6}.target{fill:#fbe5d0}"
)


def _box(x: float, y: float, size: int, kind: str, character: str) -> str:
    return (
        f'<rect x="{x}" y="{y}" width="{size}" height="{size}" class="{kind}"/>'
        f'<text x="{x + size / 2}" y="{y + 16}">{_glyph(character)}</text>'
    )


def _glyph(character: str) -> str:
    shown = {"\n": "⏎", " ": "␣", "\t": "⇥"}.get(character, character)
    return escape(shown if shown.isprintable() else "·")


def _in_words(curves: Mapping[str, Values]) -> str:
    sentences = []
    for name, values in curves.items():
        losses = [value for value in values if value is not None and math.isfinite(value)]
        if losses:
            sentences.append(f"{name}: from {losses[0]:.3f} to {losses[-1]:.3f} in {len(losses)} epochs.")
    return " ".join(sentences)


def _svg_of(figure: Any, salt: str) -> str:
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": salt, "font.size": 11}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return _data_uri(buffer.getvalue().decode())


def _svg(width: float, height: float, content: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">{content}</svg>'
    )


def _data_uri(svg: str) -> str:
    return f"data:image/svg+xml;base64,{b64encode(svg.encode()).decode()}"
