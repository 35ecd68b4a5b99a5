"""What results say, computed from their figures: for the report and for a page of documentation alike."""

from collections.abc import Mapping
from typing import Any

from charloom.units import bits_from_nats

_HOLDS_WITHIN = 0.03
_HYPOTHESIS = (
    "Hypothesis: the Keras of the day overwrote the carried state before back-propagation read it. Emulated here, that"
)


def overwritten_state_sentence(figures: Mapping[str, Any], of: Mapping[str, Any]) -> str:
    """Returns whether training on an overwritten state explains what was published."""
    published = of["published_losses"]
    if not published:
        stalled = of["published"]["accuracy"]
        return (
            f"{_HYPOTHESIS} ends at an accuracy of {figures['accuracy']:.2f}; the published run stalled at about "
            f"{stalled:.2f}, and correct training reaches {of['accuracy']:.2f}."
        )
    pairs = zip(figures["losses"], published, strict=False)
    apart = max(abs(here - there) / there for here, there in pairs if here is not None)
    verdict = "holds" if apart <= _HOLDS_WITHIN else "does not hold"
    return (
        f"{_HYPOTHESIS} gives the published losses within {apart:.1%} at every epoch: the hypothesis {verdict} here. "
        f"Correct training ends at {of['losses'][-1]:.4f}; {published[-1]:.4f} was published."
    )


def bits_table(rungs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns accuracy and bits per byte of the rungs that hold text out, and of their variants; in their order."""
    rows = []
    for name, figures in rungs.items():
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
