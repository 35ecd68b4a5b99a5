"""Many experiments into one folder: `results.json`, a report, and a model per experiment; what is done stays done."""

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
from charloom.artifacts import Output, OutputKind, alone_in, cannot_write, make_folder, remove_own
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
"""Files that may be replaced by results."""


class ExperimentPlace(NamedTuple):
    """Which experiment it is, counted from 1, of how many."""

    number: int
    experiments: int


@dataclass(frozen=True)
class ExperimentStart:
    """An experiment begins, or a variant of one.

    Attributes:
        name: study/experiment, with the variant's name in brackets.
        place: of the experiment among those that are asked for.
        epochs: how many it has.
        published_losses: of each epoch; None where there are none.
        cut: what the run leaves out, in words; None where it is all there.
    """

    name: str
    place: ExperimentPlace
    epochs: int
    published_losses: Sequence[float] | None
    cut: str | None


@dataclass(frozen=True)
class ExperimentEnd:
    """An experiment is done, or a variant of one: its figures are in the results.

    Attributes:
        name: as of its start.
        figures: as in `results.json`.
    """

    name: str
    figures: Figures


StudyEvent = Event | ExperimentStart | ExperimentEnd


def chosen_experiments(names: Sequence[str]) -> list[tuple[str, str]]:
    """Returns the study and the experiment of each experiment that `names` ask for, all of them where there is none.

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
        return f"{study} has no experiment {name.partition('/')[2]!r}: it has {', '.join(STUDIES[study].experiments)}"
    nearest = get_close_matches(name, [*STUDIES, *("/".join(pair) for pair in everything)], n=1)
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    listed = "; ".join(f"{study} ({', '.join(contents.experiments)})" for study, contents in STUDIES.items())
    return f"{name!r} is unknown: {hint}there are {listed}"


@dataclass(frozen=True, kw_only=True)
class ReproduceSettings:
    """What is to be done again.

    Attributes:
        names: studies, or study/experiment; none for all of them.
        out: the folder that everything goes into.
        mode: "quick" for a cut of each experiment, "default", or "full" for all of what was published.
        seed: of weights and of the order in which windows are read.
        force: whether what `out` holds of another run is thrown away.
    """

    names: Sequence[str] = ()
    out: Path
    mode: Mode = "default"
    seed: int = 0
    force: bool = False


def reproduce(
    settings: ReproduceSettings, should_stop: Callable[[], bool] = lambda: False
) -> Generator[StudyEvent, None, list[str]]:
    """Yields the run's events, and returns a line for each text that could not be had, with the experiments left out.

    Raises:
        SettingError: a name or the seed is wrong.
        OutputError: the folder cannot be written to, is in use, or holds what another run made.
    """
    chosen = chosen_experiments(settings.names)
    require_seed(settings.seed)
    make_folder(settings.out)
    Output(settings.out / REPORT_FILE, PAGE)  # before anything is trained
    missing: dict[str, tuple[str, list[str]]] = {}
    with alone_in(settings.out):
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
    """Yields the events of what is left of an experiment; keeps its figures, those of each variant as it is done."""
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
        yield Notice(f"{study}/{name}: done before")
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
    """Returns what a run of `experiment` leaves out of what is `declared`; None where it is all there."""
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
    """Returns the results in the folder to continue from, or none where a run begins."""
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
        raise OutputError(f"{problem} Give another --out, or --force to begin again and to keep that file beside it.")
    if problem is not None:
        _keep_aside(path)
    Output(path, RESULTS)  # what somebody else made is not thrown away
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
    """Returns the results at `path`, and a sentence on why they cannot be continued."""
    try:
        held = read_results(path)
    except OutputError as error:
        return {}, str(error)
    if held["run"] != run:
        described = one_line(", ".join(f"{name} {value}" for name, value in held["run"].items()))[:100]
        return {}, f"{path} holds results of another run ({described})."
    others = [study for study in held["studies"] if study not in {study for study, _ in chosen}]
    return held, f"{path} holds results of another study, {', '.join(others)}." if others else None


def _keep_aside(path: Path) -> None:
    """Gives results that are begun again another name, since they may have taken hours.

    Raises:
        OutputError: it cannot be done.
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
    # In the order of the publications, whatever was run first.
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
