"""Checks of a full run of an experiment against its published figures."""

from collections.abc import Mapping
from typing import Any

from charloom.studies.experiment import Experiment, keras_figures

_LOSS_ABOVE_PUBLISHED = 0.03
_LOSS_BESIDE_KERAS = 0.02


def checks_of(experiment: Experiment, figures: Mapping[str, Any], published: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the description of each check, and whether it holds.

    Args:
        experiment: the full experiment.
        figures: results of the run.
        published: published figures.
    """
    checks: list[dict[str, Any]] = []

    def add(words: str, holds: bool) -> None:
        checks.append({"check": words, "holds": holds})

    if "parameters" in published:
        add(f"{published['parameters']:,} parameters", figures["parameters"] == published["parameters"])
    if "rows" in published:
        add(f"{published['rows']:,} rows per epoch", figures["batching"]["rows"] == published["rows"])
    if published.get("losses"):
        limit = (1 + _LOSS_ABOVE_PUBLISHED) * published["losses"][-1]
        last = figures["losses"][-1]
        add(
            f"final loss at most {_LOSS_ABOVE_PUBLISHED:.0%} above the published {published['losses'][-1]}",
            last is not None and last <= limit,
        )
    if experiment.keras in (keras := keras_figures()["experiments"]):
        theirs = keras[experiment.keras]["losses"]
        ours = figures["losses"][: len(theirs)][-1]
        add(
            f"loss after epoch {len(theirs)} within {_LOSS_BESIDE_KERAS:.0%} of that of Keras "
            f"{keras_figures()['keras']}, {theirs[-1]:.4f}",
            ours is not None and abs(ours - theirs[-1]) <= _LOSS_BESIDE_KERAS * theirs[-1],
        )
    if experiment.accuracy_at_least is not None:
        add(
            f"median accuracy of at least {experiment.accuracy_at_least:g}",
            figures["accuracy"] >= experiment.accuracy_at_least,
        )
    return checks
