"""The progress of a run that a checkpoint stores next to the arrays, with checks that its fields agree."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from charloom.artifacts import convert_json
from charloom.errors import ModelFileError
from charloom.runs.run_file import Sha256
from charloom.settings import MAX_COUNT
from charloom.training import MAX_RETRIES, LoopProgress, StepPlan

_Step = Annotated[int, Meta(ge=1, le=MAX_COUNT)]
_Nats = Annotated[float, Meta(ge=-1e300, le=1e300)]
_MAX_SECONDS = 1e12


class BestEvaluation(Struct, forbid_unknown_fields=True, frozen=True):
    """The figures of `charloom.training.Evaluation`."""

    step: _Step
    epoch: Annotated[float, Meta(ge=0, le=1e300)]
    train_nats_per_char: _Nats
    validation_nats_per_char: _Nats


class HistoryEntry(Struct, forbid_unknown_fields=True, frozen=True):
    """An entry of the history; a loss of NaN becomes None."""

    step: _Step
    train_nats_per_char: _Nats | None
    validation_nats_per_char: _Nats | None


class SampleEntry(Struct, forbid_unknown_fields=True, frozen=True):
    """A short sample, and the step after which the model generated it."""

    step: _Step
    text: Annotated[str, Meta(max_length=100_000)]


class CheckpointProgress(Struct, forbid_unknown_fields=True, frozen=True):
    """The progress of a run.

    Attributes:
        run: the digest in `run.json`.
        loop: the progress of the training loop.
        best: the best evaluation; None before the first.
        history: the evaluations so far.
        samples: the samples in the model file.
        spent: how many seconds of the budget are spent.
    """

    run: Sha256
    loop: LoopProgress
    best: BestEvaluation | None
    history: list[HistoryEntry]
    samples: list[SampleEntry]
    spent: Annotated[float, Meta(ge=0, le=_MAX_SECONDS)]

    def as_json(self) -> dict[str, Any]:
        """Returns the same as JSON values."""
        values: dict[str, Any] = msgspec.to_builtins(self)
        return values


def checked_progress(
    values: Any, path: Path, run: str, first_step_plan: StepPlan, has_budget: bool
) -> CheckpointProgress:
    """Returns the progress in the checkpoint at `path`.

    Args:
        values: the JSON values.
        path: the checkpoint's path, for errors.
        run: the digest of the run to resume.
        first_step_plan: the step plan with which the run starts.
        has_budget: whether the run may have changed its plan.

    Raises:
        ModelFileError: a field has another type or is out of bounds, fields disagree, or the run is another one.
    """
    if isinstance(values, dict) and isinstance(values.get("run"), str) and values["run"] != run:
        raise ModelFileError(
            f"{path} is a checkpoint of another run (its digest is {values['run'][:12]!r}, run.json has {run[:12]!r})."
        )
    progress = convert_json(values, CheckpointProgress, str(path))
    if problem := _problem(progress, first_step_plan, has_budget):
        raise ModelFileError(f"{path}: {problem}.")
    return progress


def _problem(progress: CheckpointProgress, first_step_plan: StepPlan, has_budget: bool) -> str | None:
    """Returns the first field that disagrees with the others, and what it should be."""
    loop, history = progress.loop, progress.history
    evaluated = history[-1].step if history else 0
    lowest = None if progress.best is None else progress.best.validation_nats_per_char
    plans = loop.step_plan.plans
    if not has_budget and plans != first_step_plan.plans:
        return f"loop.step_plan is not the plan of {first_step_plan.steps:,} steps that run.json asks for"
    if problem := _plan_problem(plans):
        return f"loop.step_plan {problem}"
    return next(
        (
            f"{field} is {found}, expected {expected}"
            for field, found, is_good, expected in (
                (
                    "loop.step",
                    loop.step,
                    0 <= loop.step <= loop.step_plan.steps,
                    f"at most {loop.step_plan.steps}",
                ),
                ("loop.evaluated", loop.evaluated, loop.evaluated == evaluated, f"{evaluated} as in history"),
                (
                    "loop.nats_count",
                    loop.nats_count,
                    loop.nats_count == loop.step - evaluated >= 0,
                    f"{loop.step - evaluated}",
                ),
                ("loop.nats_sum", loop.nats_sum, abs(loop.nats_sum) <= 1e300, "a finite number"),
                ("loop.lowest", loop.lowest, loop.lowest == lowest, f"{lowest} as in best"),
                ("loop.stale", loop.stale, 0 <= loop.stale <= len(history), f"at most {len(history)}"),
                ("loop.retries", loop.retries, 0 <= loop.retries <= MAX_RETRIES, f"at most {MAX_RETRIES}"),
                ("history", "not sorted", _is_ascending(history), "ascending steps"),
                ("samples", "not sorted", _is_ascending(progress.samples), "ascending steps"),
                (
                    "best.step",
                    progress.best and progress.best.step,
                    progress.best is None or progress.best.step in {entry.step for entry in history},
                    "a step in history",
                ),
            )
            if not is_good
        ),
        None,
    )


def _plan_problem(plans: Sequence[tuple[int, int]]) -> str | None:
    starts = [step for step, _ in plans]
    if not plans or starts[0] != 0 or not all(a < b for a, b in itertools.pairwise(starts)):
        return "does not ascend from step 0"
    if not all(start < end <= MAX_COUNT for start, end in plans):
        return "has a plan that ends before it starts"
    if not all(end > start for (_, end), (start, _) in itertools.pairwise(plans)):
        return "has a plan that starts after the previous one ended"
    return None


def _is_ascending(entries: Sequence[HistoryEntry | SampleEntry]) -> bool:
    steps = [entry.step for entry in entries]
    return steps == sorted(set(steps))
