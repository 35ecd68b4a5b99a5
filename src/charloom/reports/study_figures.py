"""Sentences and tables computed from results, for the report and for the documentation."""

from collections.abc import Mapping
from typing import Any

from charloom.units import bits_from_nats, format_seconds

_HOLDS_WITHIN = 0.03
_HYPOTHESIS = (
    "Hypothesis: back then, Keras overwrote the carried state before back-propagation read it. Emulating this mistake"
)

Figures = Mapping[str, Any]


def sentences(name: str, experiments: Mapping[str, Figures]) -> list[str]:
    """Returns sentences that compare the experiment `name` with its published figures and with other experiments."""
    figures = experiments[name]
    said = []
    if "overwritten_state" in figures["variants"]:
        said.append(_overwritten_state(figures["variants"]["overwritten_state"], figures))
    if "nan_after_about_epoch" in figures["published"]:
        said.append(_not_a_number(figures))
    if "held_out_loss" in figures["published"]:
        said.append(_best_epoch(figures))
    for other in figures["beats"]:
        if other in experiments:
            said.append(_beats(name, figures, other, experiments[other]))
    return said


def accuracy_text(figures: Figures) -> str:
    """Returns the accuracy as text, with its range if there are several seeds."""
    if "accuracy_range" not in figures:
        return f"{figures['accuracy']:.3f}"
    low, high = figures["accuracy_range"]
    return f"{figures['accuracy']:.3f} ({low:.3f} to {high:.3f}, {figures['seeds']} seeds)"


def loss_text(loss: float | None) -> str:
    """Returns a loss in nats as text."""
    return "not finite" if loss is None else f"{loss:.4f}"


def _overwritten_state(variant: Figures, of: Figures) -> str:
    published = of["published_losses"]
    if not published:
        stalled, correct, here = of["published"]["accuracy"], of["accuracy"], variant["accuracy"]
        nearer = abs(here - stalled) < abs(correct - stalled)
        verdict = "holds in kind: training stalls, as in the published run" if nearer else "does not hold here"
        return (
            f"{_HYPOTHESIS} gives an accuracy of {here:.2f}. The published run stalled at about {stalled:.2f}, and "
            f"correct training reaches {correct:.2f}. The hypothesis {verdict}."
        )
    pairs = list(zip(variant["losses"], published, strict=False))
    if any(here is None for here, _ in pairs):
        return f"{_HYPOTHESIS} gives a loss that is not finite, so the hypothesis does not hold here."
    apart = max(abs(here - there) / there for here, there in pairs)
    verdict = "holds" if apart <= _HOLDS_WITHIN else "does not hold"
    return (
        f"{_HYPOTHESIS} gives the published losses within {apart:.1%} at each of {len(pairs)} epochs, so the "
        f"hypothesis {verdict} here. Correct training ends at a loss of {loss_text(of['losses'][-1])}. The "
        f"published one is {published[-1]:.4f}."
    )


def _not_a_number(figures: Figures) -> str:
    published, losses = figures["published"]["nan_after_about_epoch"], figures["losses"]
    here = (
        f"not finite after epoch {losses.index(None) + 1}"
        if None in losses
        else f"{losses[-1]:.4f} after {len(losses)} epochs"
    )
    return f"The published loss was NaN after about {published} epochs. Here it is {here}."


def _best_epoch(figures: Figures) -> str:
    published, losses = figures["published"]["held_out_loss"], figures["held_out_losses"]
    numbers = [(loss, epoch) for epoch, loss in enumerate(losses, 1) if loss is not None]
    if not numbers:
        return "The held-out loss is not finite after any epoch."
    here = f", here {loss_text(losses[published['epoch'] - 1])}" if published["epoch"] <= len(losses) else ""
    said = [f"The published held-out loss after epoch {published['epoch']} is {published['loss']:.2f}{here}."]
    loss, epoch = min(numbers)
    said.append(f"The best here is {loss_text(loss)} after epoch {epoch}{', the last' * (epoch == len(losses))}.")
    if epoch != len(losses):
        said.append(f"After epoch {len(losses)} it is {loss_text(losses[-1])}.")
    if len(losses) < sum(phase["epochs"] for phase in figures["phases"]):
        said.append("Training ended there because the loss diverged.")
    return " ".join(said)


def _beats(name: str, figures: Figures, other: str, others: Figures) -> str:
    nats = [one["held_out_score"]["nats"] for one in (figures, others)]
    if None in nats:
        return f"{name} cannot be compared with {other}: a held-out score is not finite."
    ours, theirs = map(bits_from_nats, nats)
    times = format_seconds(figures["training_seconds"]), format_seconds(others["training_seconds"])
    wins = ours < theirs and figures["training_seconds"] < others["training_seconds"]
    verdict = "beats" if wins else "does not beat"
    return (
        f"{name} {verdict} {other}: {ours:.3f} bits on held-out text after {times[0]} of training, against "
        f"{theirs:.3f} after {times[1]}."
    )


def bits_table(experiments: Mapping[str, Figures]) -> list[dict[str, Any]]:
    """Returns accuracy and bits of the experiments with held-out text and of their variants, in order."""
    rows = []
    for name, figures in experiments.items():
        named = {name: figures} | {
            f"{name}, {variant.replace('_', ' ')}": one for variant, one in figures["variants"].items()
        }
        for label, one in named.items():
            if one.get("held_out_score", {}).get("nats") is None or one["train_score"]["nats"] is None:
                continue
            cold = one.get("held_out_cold_score", {}).get("nats")
            rows.append(
                {
                    "name": label,
                    "train_accuracy": one["train_score"]["accuracy"],
                    "train_bits": bits_from_nats(one["train_score"]["nats"]),
                    "accuracy": one["held_out_score"]["accuracy"],
                    "bits": bits_from_nats(one["held_out_score"]["nats"]),
                    "cold_bits": None if cold is None else bits_from_nats(cold),
                    "seconds": one["training_seconds"],
                }
            )
    return rows
