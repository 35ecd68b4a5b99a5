"""What an uncut run of an experiment must come to, beside what was published of it."""

from collections.abc import Mapping
from typing import Any

from charloom.studies.experiment import Experiment, keras_figures

_LOSS_ABOVE_PUBLISHED = 0.03
_LOSS_BESIDE_KERAS = 0.02


def checks_of(experiment: Experiment, figures: Mapping[str, Any], published: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns each check in words, and whether it holds.

    Args:
        experiment: the experiment, all of it.
        figures: what came of the run.
        published: the published figures.
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
            f"the last epoch's loss at most {_LOSS_ABOVE_PUBLISHED:.0%} above the published {published['losses'][-1]}",
            last is not None and last <= limit,
        )
    if experiment.keras in (keras := keras_figures()["experiments"]):
        theirs = keras[experiment.keras]["losses"]
        ours = figures["losses"][: len(theirs)][-1]
        add(
            f"after epoch {len(theirs)} within {_LOSS_BESIDE_KERAS:.0%} of the {theirs[-1]:.4f} of Keras "
            f"{keras_figures()['keras']} on the same experiment",
            ours is not None and abs(ours - theirs[-1]) <= _LOSS_BESIDE_KERAS * theirs[-1],
        )
    if experiment.accuracy_at_least is not None:
        add(
            f"a median accuracy of at least {experiment.accuracy_at_least:g}",
            figures["accuracy"] >= experiment.accuracy_at_least,
        )
    return checks
