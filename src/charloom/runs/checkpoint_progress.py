"""What a checkpoint says of its run beside the arrays, with checks that its parts agree."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from charloom.artifacts import structured
from charloom.errors import ModelFileError
from charloom.runs.run_file import Sha256
from charloom.settings import MOST_COUNT
from charloom.training import MOST_RETRIES, LoopCounts, Pace

_Update = Annotated[int, Meta(ge=1, le=MOST_COUNT)]
_Nats = Annotated[float, Meta(ge=-1e300, le=1e300)]
_MOST_SECONDS = 1e12


class BestEvaluation(Struct, forbid_unknown_fields=True, frozen=True):
    """The figures of `charloom.training.Evaluation`."""

    update: _Update
    epoch: Annotated[float, Meta(ge=0, le=1e300)]
    train_nats_per_char: _Nats
    validation_nats_per_char: _Nats


class Evaluated(Struct, forbid_unknown_fields=True, frozen=True):
    """An entry of the history; None is what was not a number."""

    update: _Update
    train_nats_per_char: _Nats | None
    validation_nats_per_char: _Nats | None


class Sampled(Struct, forbid_unknown_fields=True, frozen=True):
    """A short text, and the update after which the model wrote it."""

    update: _Update
    text: Annotated[str, Meta(max_length=100_000)]


class CheckpointProgress(Struct, forbid_unknown_fields=True, frozen=True):
    """Where a run stands.

    Attributes:
        run: the digest in `run.json`.
        counts: of the loop.
        best: the best evaluation; None before the first.
        history: the evaluations so far.
        samples: that the model file has.
        spent: seconds of the budget.
    """

    run: Sha256
    counts: LoopCounts
    best: BestEvaluation | None
    history: list[Evaluated]
    samples: list[Sampled]
    spent: Annotated[float, Meta(ge=0, le=_MOST_SECONDS)]

    def as_json(self) -> dict[str, Any]:
        """Returns the same as JSON values."""
        values: dict[str, Any] = msgspec.to_builtins(self)
        return values


def checked_progress(values: Any, path: Path, run: str, first_pace: Pace, has_budget: bool) -> CheckpointProgress:
    """Returns the progress in the checkpoint at `path`.

    Args:
        values: JSON values.
        path: for the error.
        run: the digest of the run that is to be resumed.
        first_pace: how the run is planned where it begins.
        has_budget: whether it may have been planned again.

    Raises:
        ModelFileError: a field has another type or is out of bounds, fields do not agree, or it is another run's.
    """
    if isinstance(values, dict) and isinstance(values.get("run"), str) and values["run"] != run:
        raise ModelFileError(
            f"{path} is a checkpoint of another run (digest {values['run'][:12]!r}, that of run.json is {run[:12]!r})."
        )
    progress = structured(values, CheckpointProgress, str(path))
    if problem := _problem(progress, first_pace, has_budget):
        raise ModelFileError(f"{path}: {problem}.")
    return progress


def _problem(progress: CheckpointProgress, first_pace: Pace, has_budget: bool) -> str | None:
    """Returns the first field that does not agree with the others, and what it should be."""
    counts, history = progress.counts, progress.history
    evaluated = history[-1].update if history else 0
    lowest = None if progress.best is None else progress.best.validation_nats_per_char
    plans = counts.pace.plans
    if not has_budget and plans != first_pace.plans:
        return f"counts.pace is not the plan of {first_pace.updates:,} updates that run.json asks for"
    if problem := _plan_problem(plans):
        return f"counts.pace {problem}"
    return next(
        (
            f"{field} is {found}, expected {expected}"
            for field, found, is_good, expected in (
                ("counts.update", counts.update, 0 <= counts.update <= counts.pace.updates, "a part of those planned"),
                ("counts.evaluated", counts.evaluated, counts.evaluated == evaluated, f"{evaluated} as in history"),
                (
                    "counts.nats_count",
                    counts.nats_count,
                    counts.nats_count == counts.update - evaluated >= 0,
                    f"{counts.update - evaluated}",
                ),
                ("counts.nats_sum", counts.nats_sum, abs(counts.nats_sum) <= 1e300, "a finite number"),
                ("counts.lowest", counts.lowest, counts.lowest == lowest, f"{lowest} as in best"),
                ("counts.stale", counts.stale, 0 <= counts.stale <= len(history), f"at most {len(history)}"),
                ("counts.retries", counts.retries, 0 <= counts.retries <= MOST_RETRIES, f"at most {MOST_RETRIES}"),
                ("history", "not sorted", _is_ascending(history), "ascending updates"),
                ("samples", "not sorted", _is_ascending(progress.samples), "ascending updates"),
                (
                    "best.update",
                    progress.best and progress.best.update,
                    progress.best is None or progress.best.update in {one.update for one in history},
                    "one of history",
                ),
            )
            if not is_good
        ),
        None,
    )


def _plan_problem(plans: Sequence[tuple[int, int]]) -> str | None:
    begins = [update for update, _ in plans]
    if not plans or begins[0] != 0 or not all(a < b for a, b in itertools.pairwise(begins)):
        return "does not ascend from update 0"
    if not all(begin < end <= MOST_COUNT for begin, end in plans):
        return "has a plan that ends before it begins"
    if not all(end > begin for (_, end), (begin, _) in itertools.pairwise(plans)):
        return "has a plan that begins after the one before it ended"
    return None


def _is_ascending(entries: Sequence[Evaluated | Sampled]) -> bool:
    updates = [entry.update for entry in entries]
    return updates == sorted(set(updates))
