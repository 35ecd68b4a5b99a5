"""Runs experiments into one folder, which gets `results.json`, a report and a model per experiment.

Experiments that are already in the results are not run again.
"""

import itertools
import json
import os
import platform
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from charloom import __version__
from charloom.artifacts import Output, OutputKind, cannot_write, lock_folder, make_folder, remove_own
from charloom.errors import OutputError, SettingError, SourceError
from charloom.machine import available_cores, jax_info, peak_memory_bytes, processor_name
from charloom.model import MODEL
from charloom.printable import one_line
from charloom.reports import PAGE, study_report
from charloom.runs.checkpoint import CHECKPOINT
from charloom.settings import require_seed
from charloom.studies import STUDIES
from charloom.studies.checks import checks_of
from charloom.studies.experiment import Experiment, Mode, keras_figures, published
from charloom.studies.results_file import RESULTS_VERSION, read_results
from charloom.studies.resuming import remove_spent
from charloom.studies.run_experiment import Figures, run_experiment
from charloom.studies.run_seeds import run_seeds
from charloom.training import Event, Notice

RESULTS_FILE = "results.json"
REPORT_FILE = "report.html"


def _is_own(path: Path) -> bool:
    try:
        held = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError):
        return False
    return isinstance(held, dict) and held.keys() >= {"version", "run", "studies"}


RESULTS = OutputKind("results file", RESULTS_FILE, "charloom", _is_own)
"""The kind of file that results may replace."""


class ExperimentPlace(NamedTuple):
    """The number of an experiment, counted from 1, and how many experiments run."""

    number: int
    experiments: int


@dataclass(frozen=True)
class ExperimentStart:
    """An experiment, or a variant of one, starts.

    Attributes:
        name: study/experiment, followed by the name of a variant in parentheses.
        place: position among the requested experiments.
        epochs: number of epochs.
        published_losses: published loss of each epoch; None if not published.
        cut: description of what the run leaves out; None for a full run.
    """

    name: str
    place: ExperimentPlace
    epochs: int
    published_losses: Sequence[float] | None
    cut: str | None


@dataclass(frozen=True)
class ExperimentEnd:
    """An experiment, or a variant of one, is done, and its figures are in the results.

    Attributes:
        name: same as in `ExperimentStart`.
        figures: same as in `results.json`.
    """

    name: str
    figures: Figures


StudyEvent = Event | ExperimentStart | ExperimentEnd


def chosen_experiments(names: Sequence[str]) -> list[tuple[str, str]]:
    """Returns the study and the name of each experiment that `names` select; all experiments if `names` is empty.

    Raises:
        SettingError: a name is neither a study nor study/experiment.

    >>> chosen_experiments(["nietzsche/char3"])
    [('nietzsche', 'char3')]
    """
    everything = [(study, experiment) for study, contents in STUDIES.items() for experiment in contents.experiments]
    chosen: set[tuple[str, str]] = set()
    for name in names or STUDIES:
        named = [pair for pair in everything if name in (pair[0], "/".join(pair))]
        if not named:
            raise SettingError("study", _unknown(name, everything))
        chosen.update(named)
    return [pair for pair in everything if pair in chosen]


def _unknown(name: str, everything: Sequence[tuple[str, str]]) -> str:
    study = name.partition("/")[0]
    if study in STUDIES and "/" in name:
        listed = ", ".join(STUDIES[study].experiments)
        return f"{study} has no experiment {name.partition('/')[2]!r}. Its experiments: {listed}"
    nearest = get_close_matches(name, [*STUDIES, *("/".join(pair) for pair in everything)], n=1)
    hint = f" Did you mean {nearest[0]}?" if nearest else ""
    listed = "; ".join(f"{study} ({', '.join(contents.experiments)})" for study, contents in STUDIES.items())
    return f"{name!r} is unknown.{hint} Studies: {listed}"


@dataclass(frozen=True, kw_only=True)
class ReproduceSettings:
    """What to run, and where to.

    Attributes:
        names: studies, or study/experiment; empty for all.
        out: output folder.
        mode: "quick" for a shortened run of each experiment, "default", or "full" for everything that was published.
        seed: random seed of the weights and of the order of windows.
        force: whether to run the experiments again and to discard results of another run in `out`.
    """

    names: Sequence[str] = ()
    out: Path
    mode: Mode = "default"
    seed: int = 0
    force: bool = False


def reproduce(
    settings: ReproduceSettings, should_stop: Callable[[], bool] = lambda: False
) -> Generator[StudyEvent, None, list[str]]:
    """Yields the run's events, and returns one line per unavailable text, with the experiments that need it.

    Raises:
        SettingError: a name or the seed is wrong.
        OutputError: the folder is not writable, is in use, or has results of another run.
    """
    chosen = chosen_experiments(settings.names)
    require_seed(settings.seed)
    make_folder(settings.out)
    Output(settings.out / REPORT_FILE, PAGE)  # fails before training if the file cannot be written
    missing: dict[str, tuple[str, list[str]]] = {}
    with lock_folder(settings.out):
        results = _opened(settings, chosen)
        for number, (study, name) in enumerate(chosen, 1):
            if should_stop():
                break
            source = STUDIES[study].experiments[name].text.source
            try:
                if source not in missing:
                    yield from _experiment(
                        settings, study, name, ExperimentPlace(number, len(chosen)), results, should_stop
                    )
            except SourceError as error:
                missing[source] = str(error), []
            if source in missing:
                missing[source][1].append(f"{study}/{name}")
        _write_results(settings.out, results)
        _write_report(settings.out, results)
    return [f"{', '.join(names)}: {problem}" for problem, names in missing.values()]


def _experiment(
    settings: ReproduceSettings,
    study: str,
    name: str,
    place: ExperimentPlace,
    results: dict[str, Any],
    should_stop: Callable[[], bool],
) -> Generator[StudyEvent, None, None]:
    """Yields the events of the rest of an experiment; saves figures after the experiment and after each variant."""
    declared = STUDIES[study].experiments[name]
    experiment = declared.cut(settings.mode)
    cut = cut_in_words(declared, experiment)
    figures_published = published()[study]["experiments"].get(name, {})
    losses = figures_published.get("losses")
    figures = results["studies"].get(study, {}).get(name)
    if figures is None:
        yield ExperimentStart(f"{study}/{name}", place, experiment.epochs, losses, cut)
        figures = yield from _one(settings, study, name, experiment, figures_published, should_stop)
        if figures is None:
            return
        figures |= {
            "machine": results["machine"],
            "own": experiment.own,
            "cut": cut,
            "keras": keras_figures()["experiments"].get(name),
            "beats": list(experiment.beats),
            "published": dict(figures_published),
            "published_losses": losses,
            "checks": [] if cut else checks_of(experiment, figures, figures_published),
            "variants": {},
            "variants_left_out": [variant for variant in declared.variants if variant not in experiment.variants],
        }
        results["studies"].setdefault(study, {})[name] = figures
        _write_results(settings.out, results)
        remove_spent(settings.out / study / name)
        yield ExperimentEnd(f"{study}/{name}", figures)
    elif not experiment.variants.keys() - figures["variants"].keys():
        yield Notice(f"{study}/{name}: already done")
    for variant in experiment.variants:
        if variant in figures["variants"] or should_stop():
            continue
        changed = experiment.variant(variant)
        variant_name, folder_name = f"{study}/{name} ({variant.replace('_', ' ')})", f"{name}.{variant}"
        yield ExperimentStart(variant_name, place, changed.epochs, losses, cut)
        of_variant = yield from _one(settings, study, folder_name, changed, {}, should_stop)
        if of_variant is None:
            return
        figures["variants"][variant] = of_variant | {"checks": checks_of(changed, of_variant, {})}
        _write_results(settings.out, results)
        remove_spent(settings.out / study / folder_name)
        yield ExperimentEnd(variant_name, figures["variants"][variant])


def _one(
    settings: ReproduceSettings,
    study: str,
    name: str,
    experiment: Experiment,
    figures: Mapping[str, Any],
    should_stop: Callable[[], bool],
) -> Generator[StudyEvent, None, Figures | None]:
    folder = settings.out / study / name
    identity = {"version": __version__, "experiment": f"{study}/{name}", "mode": settings.mode, "seed": settings.seed}
    came: Figures | None
    if experiment.seeds > 1:
        came = yield from run_seeds(experiment, figures, settings.seed, folder)
    else:
        came = yield from run_experiment(experiment, figures, settings.seed, folder, identity, should_stop)
    return None if came is None else came | {"peak_memory_bytes": peak_memory_bytes()}


def cut_in_words(declared: Experiment, experiment: Experiment) -> str | None:
    """Returns a description of what `experiment` leaves out of `declared`; None if nothing."""
    parts = []
    if experiment.text != declared.text:
        parts.append(f"the first {experiment.text.first:,} characters")
    if experiment.model != declared.model:
        parts.append("a smaller network")
    if experiment.batching != declared.batching or experiment.epochs != declared.epochs:
        steps, of = (getattr(one.batching, "epoch", 0) * one.epochs for one in (experiment, declared))
        parts.append(f"{steps:,} of {of:,} steps" if of else f"{experiment.epochs} of {declared.epochs} epochs")
    if experiment.seeds != declared.seeds:
        parts.append(f"{experiment.seeds} of {declared.seeds} seeds")
    return ", ".join(parts) or None


def _opened(settings: ReproduceSettings, chosen: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Returns the results in the folder to continue from, or empty ones for a new run."""
    run = {"mode": settings.mode, "seed": settings.seed}
    fresh = {
        "results_version": RESULTS_VERSION,
        "version": __version__,
        "run": run,
        "machine": _machine(),
        "studies": {},
    }
    path = settings.out / RESULTS_FILE
    problem: str | None = None
    held: dict[str, Any] = fresh
    if os.path.lexists(path):
        held, problem = _held(path, run, chosen)
    if problem is not None and not settings.force:
        raise OutputError(
            f"{problem} Choose another --out, or use --force to start again and keep that file as a backup."
        )
    if problem is not None:
        _keep_aside(path)
    Output(path, RESULTS)  # refuses to replace a file that charloom did not make
    if not settings.force:
        return held
    results: dict[str, Any] = fresh if problem is not None else held
    for study, experiment in chosen:
        results["studies"].get(study, {}).pop(experiment, None)
        for name in (
            experiment,
            *(f"{experiment}.{variant}" for variant in STUDIES[study].experiments[experiment].variants),
        ):
            for checkpoint in (settings.out / study / name).glob("*.safetensors"):
                remove_own(checkpoint, CHECKPOINT)
                remove_own(checkpoint, MODEL)
    results["studies"] = {study: experiments for study, experiments in results["studies"].items() if experiments}
    _write_results(settings.out, results)
    return results


def _held(path: Path, run: Mapping[str, Any], chosen: Sequence[tuple[str, str]]) -> tuple[dict[str, Any], str | None]:
    """Returns the results at `path`, and a sentence that says why they cannot be continued, or None."""
    try:
        held = read_results(path)
    except OutputError as error:
        return {}, str(error)
    if held["run"] != run:
        settings = one_line(", ".join(f"{name} {value}" for name, value in held["run"].items()))[:100]
        return {}, f"{path} has results of another run ({settings})."
    others = [study for study in held["studies"] if study not in {study for study, _ in chosen}]
    return held, f"{path} has results of another study, {', '.join(others)}." if others else None


def _keep_aside(path: Path) -> None:
    """Renames the results of an earlier run, because they may have taken hours.

    Raises:
        OutputError: the file cannot be renamed.
    """
    names = (path.with_name(f"results.previous{number or ''}.json") for number in itertools.count())
    try:
        path.rename(next(name for name in names if not os.path.lexists(name)))
    except OSError as error:
        raise OutputError(cannot_write(path, error)) from error


def _machine() -> dict[str, Any]:
    return {
        "processor": processor_name(),
        "cores": available_cores(),
        "system": platform.system(),
        "python": platform.python_version(),
        **jax_info(),
    }


def _write_results(folder: Path, results: dict[str, Any]) -> None:
    # Keep the order of the publications, whatever ran first.
    results["studies"] = {
        study: {
            experiment: results["studies"][study][experiment]
            for experiment in contents.experiments
            if experiment in results["studies"][study]
        }
        for study, contents in STUDIES.items()
        if study in results["studies"]
    }
    text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False)
    Output(folder / RESULTS_FILE, RESULTS).write(text.encode())


def _write_report(folder: Path, results: Mapping[str, Any]) -> None:
    about = {
        name: {"title": study.title, "note": study.note, "source": published()[name]["source"]}
        for name, study in STUDIES.items()
    }
    Output(folder / REPORT_FILE, PAGE).write(study_report(results, about).encode())
