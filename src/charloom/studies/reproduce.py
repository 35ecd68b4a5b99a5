"""Many rungs into one folder: `results.json`, a report, and for each rung its model. Done rungs are not done again."""

import json
import platform
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from charloom import __version__
from charloom.artifacts import make_folder, write_bytes
from charloom.errors import OutputError, SettingError, SourceError
from charloom.machine import available_cores, jax_facts, processor_name
from charloom.reports import study_report
from charloom.settings import require_seed
from charloom.studies import STUDIES
from charloom.studies.checks import checks_of
from charloom.studies.run_rung import Figures, run_rung
from charloom.studies.run_seeds import run_seeds
from charloom.studies.rung import Mode, Rung, published
from charloom.training import Event, Notice

RESULTS_FILE = "results.json"
REPORT_FILE = "report.html"


@dataclass(frozen=True)
class RungStart:
    """A rung begins, or a variant of one.

    Attributes:
        name: study/rung, with the variant's name in brackets.
        number: counted from 1, of `rungs`.
        epochs: how many it has.
        published_losses: of each epoch; None where there are none.
        cut: what the run leaves out, in words; None where it is all there.
    """

    name: str
    number: int
    rungs: int
    epochs: int
    published_losses: Sequence[float] | None
    cut: str | None


@dataclass(frozen=True)
class RungEnd:
    """A rung is done: its figures are in the results.

    Attributes:
        name: study/rung.
        figures: as in `results.json`.
        done_before: whether the figures are those of an earlier run.
    """

    name: str
    figures: Figures
    done_before: bool


StudyEvent = Event | RungStart | RungEnd


def chosen_rungs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Returns the study and the rung of each experiment that `names` ask for, all of them where there is none.

    Raises:
        SettingError: a name is neither a study nor study/rung.

    >>> chosen_rungs(["nietzsche/char3"])
    [('nietzsche', 'char3')]
    """
    everything = [(study, rung) for study, contents in STUDIES.items() for rung in contents.rungs]
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
        return f"has no rung {name!r}: {study} has {', '.join(STUDIES[study].rungs)}"
    nearest = get_close_matches(name, [*STUDIES, *("/".join(pair) for pair in everything)], n=1)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    listed = "; ".join(f"{study} ({', '.join(contents.rungs)})" for study, contents in STUDIES.items())
    return f"{name!r} is unknown{hint} There are {listed}" if hint else f"{name!r} is unknown: there are {listed}"


@dataclass(frozen=True, kw_only=True)
class ReproduceSettings:
    """What is to be done again.

    Attributes:
        names: studies, or study/rung; none for all of them.
        out: the folder that everything goes into.
        mode: "quick" for a cut of each rung, "default", or "full" for all of what was published.
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
    """Yields the run's events, and returns a line for each rung that could not be done.

    Raises:
        SettingError: a name or the seed is wrong.
        OutputError: the folder cannot be written to, or holds what another run made.
    """
    chosen = chosen_rungs(settings.names)
    require_seed(settings.seed)
    results = _opened(settings, chosen)
    problems: list[str] = []
    for number, (study, name) in enumerate(chosen, 1):
        done = results["studies"].get(study, {}).get(name)
        if done is not None:
            yield RungEnd(f"{study}/{name}", done, done_before=True)
            continue
        try:
            figures = yield from _rung_and_variants(settings, study, name, number, len(chosen), should_stop)
        except SourceError as error:
            problems.append(f"{study}/{name}: {error}")
            yield Notice(problems[-1])
            continue
        if figures is None:
            break
        results["studies"].setdefault(study, {})[name] = figures
        _write_results(settings.out, results)
        yield RungEnd(f"{study}/{name}", figures, done_before=False)
    _write_report(settings.out, results)
    return problems


def _rung_and_variants(
    settings: ReproduceSettings,
    study: str,
    name: str,
    number: int,
    rungs: int,
    should_stop: Callable[[], bool],
) -> Generator[StudyEvent, None, Figures | None]:
    """Yields the events of a rung and of its variants, and returns the figures of all; None where it was stopped."""
    declared = STUDIES[study].rungs[name]
    rung = declared.cut(settings.mode)
    cut = _cut(declared, rung)
    figures_published = published()[study]["rungs"].get(name, {})
    losses = figures_published.get("losses")
    yield RungStart(f"{study}/{name}", number, rungs, rung.epochs, losses, cut)
    figures = yield from _one(settings, study, name, rung, figures_published, should_stop)
    if figures is None:
        return None
    figures |= {
        "own": rung.own,
        "cut": cut,
        "published": dict(figures_published),
        "published_losses": losses,
        "checks": [] if cut else checks_of(rung, figures, figures_published),
        "variants": {},
    }
    for variant in rung.variants:
        changed = rung.variant(variant)
        variant_name = f"{study}/{name} ({variant.replace('_', ' ')})"
        yield RungStart(variant_name, number, rungs, changed.epochs, losses, cut)
        of_variant = yield from _one(settings, study, f"{name}.{variant}", changed, {}, should_stop)
        if of_variant is None:
            return None
        figures["variants"][variant] = of_variant | {"checks": checks_of(changed, of_variant, {})}
    return figures


def _one(
    settings: ReproduceSettings,
    study: str,
    name: str,
    rung: Rung,
    figures: Mapping[str, Any],
    should_stop: Callable[[], bool],
) -> Generator[StudyEvent, None, Figures | None]:
    folder = settings.out / study / name
    if rung.seeds > 1:
        return (yield from run_seeds(rung, figures, settings.seed, folder, should_stop))
    identity = {"version": __version__, "rung": f"{study}/{name}", "mode": settings.mode, "seed": settings.seed}
    return (yield from run_rung(rung, figures, settings.seed, folder, identity, should_stop))


def _cut(declared: Rung, rung: Rung) -> str | None:
    """Returns in words what a run leaves out of what was published; None where it is all there."""
    parts = []
    if rung.text != declared.text:
        parts.append(f"the first {rung.text.first:,} characters")
    if rung.model != declared.model:
        parts.append("a smaller network")
    if rung.framing != declared.framing or rung.epochs != declared.epochs:
        updates = getattr(rung.framing, "epoch", None)
        whole = getattr(declared.framing, "epoch", None)
        if updates and whole:
            parts.append(f"{rung.epochs * updates:,} of {declared.epochs * whole:,} updates")
        else:
            parts.append(f"{rung.epochs} of {declared.epochs} epochs")
    if rung.seeds != declared.seeds:
        parts.append(f"{rung.seeds} of {declared.seeds} seeds")
    return ", ".join(parts) or None


def _opened(settings: ReproduceSettings, chosen: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Returns the results that the folder holds and that are to be gone on with, or those of a run that begins."""
    make_folder(settings.out)
    asked = {"mode": settings.mode, "seed": settings.seed}
    fresh = {"machine": _machine(), "version": __version__, "run": asked, "studies": {}}
    path = settings.out / RESULTS_FILE
    if settings.force:
        for study, rung in chosen:
            for checkpoint in (settings.out / study).glob(f"{rung}*/*.safetensors"):
                checkpoint.unlink()
        return fresh
    if not path.exists():
        return fresh
    try:
        held = json.loads(path.read_text("utf-8"))
        studies, version, run = held["studies"], held["version"], held["run"]
        others = [study for study in studies if study not in {study for study, _ in chosen}]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path} is damaged, or none of charloom's. {_ELSEWHERE}") from error
    if version != __version__:
        raise OutputError(f"{path} holds results of charloom {version}, and this is {__version__}. {_ELSEWHERE}")
    if others:
        raise OutputError(f"{path} holds results of another study, {', '.join(others)}. {_ELSEWHERE}")
    if run != asked:
        was = ", ".join(f"{name} {value}" for name, value in run.items())
        raise OutputError(f"{path} holds results of another run ({was}). {_ELSEWHERE}")
    return held


_ELSEWHERE = "Give another --out, or --force to throw them away."


def _machine() -> dict[str, Any]:
    return {
        "processor": processor_name(),
        "cores": available_cores(),
        "system": platform.system(),
        "python": platform.python_version(),
        **jax_facts(),
    }


def _write_results(folder: Path, results: Mapping[str, Any]) -> None:
    text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(folder / RESULTS_FILE, text.encode())


def _write_report(folder: Path, results: Mapping[str, Any]) -> None:
    titles = {name: study.title for name, study in STUDIES.items()}
    sources = {name: figures["source"] for name, figures in published().items()}
    write_bytes(folder / REPORT_FILE, study_report(results, titles, sources).encode())
