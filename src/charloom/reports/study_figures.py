"""Sentences and tables about results, computed from their figures, for the report and the documentation."""

from collections.abc import Mapping
from typing import Any

from charloom.units import bits_from_nats, format_seconds

_TOLERANCE = 0.03
_HYPOTHESIS = (
    "Hypothesis: Keras overwrote the carried state at the time, before back-propagation read it. Emulated here, this"
)

Figures = Mapping[str, Any]


def sentences(name: str, experiments: Mapping[str, Figures]) -> list[str]:
    """Returns sentences that compare the experiment `name` with the published figures and with other experiments."""
    figures = experiments[name]
    found = []
    if "overwritten_state" in figures["variants"]:
        found.append(_overwritten_state(figures["variants"]["overwritten_state"], figures))
    if "nan_after_about_epoch" in figures["published"]:
        found.append(_nan(figures))
    if "held_out_loss" in figures["published"]:
        found.append(_best_epoch(figures))
    for other in figures["beats"]:
        if other in experiments:
            found.append(_beats(name, figures, other, experiments[other]))
    return found


def accuracy_text(figures: Figures) -> str:
    """Returns the accuracy; for several seeds the median and the range."""
    if "accuracy_range" not in figures:
        return f"{figures['accuracy']:.3f}"
    low, high = figures["accuracy_range"]
    return f"{figures['accuracy']:.3f} ({low:.3f} to {high:.3f}, {figures['seeds']} seeds)"


def loss_text(loss: float | None) -> str:
    """Returns a loss in nats for people."""
    return "NaN" if loss is None else f"{loss:.4f}"


def _overwritten_state(variant: Figures, of: Figures) -> str:
    published = of["published_losses"]
    if not published:
        stalled, correct, here = of["published"]["accuracy"], of["accuracy"], variant["accuracy"]
        nearer = abs(here - stalled) < abs(correct - stalled)
        verdict = "holds qualitatively: training stalls, as in the published run" if nearer else "does not hold here"
        return (
            f"{_HYPOTHESIS} ends at an accuracy of {here:.2f}. The published run stalled at about {stalled:.2f}, and "
            f"correct training reaches {correct:.2f}. The hypothesis {verdict}."
        )
    pairs = list(zip(variant["losses"], published, strict=False))
    if any(here is None for here, _ in pairs):
        return f"{_HYPOTHESIS} ends with a loss of NaN, so the hypothesis does not hold here."
    difference = max(abs(here - there) / there for here, there in pairs)
    verdict = "holds" if difference <= _TOLERANCE else "does not hold"
    return (
        f"{_HYPOTHESIS} gives the published losses within {difference:.1%} at each of {len(pairs)} epochs. "
        f"The hypothesis {verdict} here. "
        f"Correct training ends at {loss_text(of['losses'][-1])}; {published[-1]:.4f} was published."
    )


def _nan(figures: Figures) -> str:
    published, losses = figures["published"]["nan_after_about_epoch"], figures["losses"]
    here = (
        f"NaN after epoch {losses.index(None) + 1}"
        if None in losses
        else f"{losses[-1]:.4f} after {len(losses)} epochs"
    )
    return f"The published loss was NaN after about {published} epochs. Here it is {here}."


def _best_epoch(figures: Figures) -> str:
    published, losses = figures["published"]["held_out_loss"], figures["held_out_losses"]
    numbers = [(loss, epoch) for epoch, loss in enumerate(losses, 1) if loss is not None]
    if not numbers:
        return "The held-out loss is NaN after every epoch."
    here = []
    if published["epoch"] <= len(losses):
        here.append(f"{loss_text(losses[published['epoch'] - 1])} after that epoch")
    loss, epoch = min(numbers)
    here.append(f"at best {loss_text(loss)} after epoch {epoch}" + (", the last" if epoch == len(losses) else ""))
    if epoch != len(losses):
        here.append(f"{loss_text(losses[-1])} after epoch {len(losses)}")
    ended_early = len(losses) < sum(phase["epochs"] for phase in figures["phases"])
    return (
        f"The published held-out loss was {published['loss']:.2f} after epoch {published['epoch']}. "
        f"Here it is {', '.join(here)}{', where it diverged and training ended' if ended_early else ''}."
    )


def _beats(name: str, figures: Figures, other: str, others: Figures) -> str:
    nats = [compared["held_out_score"]["nats"] for compared in (figures, others)]
    if None in nats:
        return f"{name} is not compared with {other}, because a held-out score is NaN."
    bits, other_bits = map(bits_from_nats, nats)
    time, other_time = format_seconds(figures["training_seconds"]), format_seconds(others["training_seconds"])
    wins = bits < other_bits and figures["training_seconds"] < others["training_seconds"]
    return (
        f"{name} {'beats' if wins else 'does not beat'} {other}: {bits:.3f} held-out bits after {time} of training, "
        f"against {other_bits:.3f} after {other_time}."
    )


def bits_table(experiments: Mapping[str, Figures]) -> list[dict[str, Any]]:
    """Returns the accuracy and bits per byte of experiments with held-out text, and of their variants, in order."""
    rows = []
    for name, figures in experiments.items():
        labeled = {name: figures} | {
            f"{name}, {variant.replace('_', ' ')}": of_variant for variant, of_variant in figures["variants"].items()
        }
        for label, entry in labeled.items():
            if entry.get("held_out_score", {}).get("nats") is None or entry["train_score"]["nats"] is None:
                continue
            cold = entry.get("held_out_cold_score", {}).get("nats")
            rows.append(
                {
                    "name": label,
                    "train_accuracy": entry["train_score"]["accuracy"],
                    "train_bits": bits_from_nats(entry["train_score"]["nats"]),
                    "accuracy": entry["held_out_score"]["accuracy"],
                    "bits": bits_from_nats(entry["held_out_score"]["nats"]),
                    "cold_bits": None if cold is None else bits_from_nats(cold),
                    "seconds": entry["training_seconds"],
                }
            )
    return rows
