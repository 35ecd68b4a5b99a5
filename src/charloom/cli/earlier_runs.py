"""Settings of an earlier run: from its folder (`train --resume`) or its model (`train --repeat`)."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from charloom.errors import RunFolderError
from charloom.units import shortest_seconds

if TYPE_CHECKING:
    from charloom.runs import RunSettings


def resumed_settings(context: click.Context, given: "RunSettings", folder: Path) -> "RunSettings":
    """Returns the settings of the run in `folder`; the text and the files may have moved.

    Raises:
        RunFolderError: the command line gives a different setting.
    """
    from charloom.runs import settings_of_run

    stored = settings_of_run(folder, samples=True)
    new, original = (_flat(settings) for settings in (given.with_absolute_paths(), stored))
    differing = []
    for parameter in context.command.params:
        name = {"as_bytes": "units", "records": "delimiter"}.get(str(parameter.name), str(parameter.name))
        if name in ("sources", "out", "cache"):  # the text's digest shows whether it is the same
            continue
        is_given = context.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE
        if is_given and name in original and new[name] != original[name]:
            differing.append(
                f"{parameter.opts[0]} is {_shown(name, original[name])} there, {_shown(name, new[name])} here"
            )
    if differing:
        raise RunFolderError(
            f"{stored.folder} holds a run with other settings: {'; '.join(differing)}. Leave them out to resume it, or "
            "start another run with --run."
        )
    out = given.out if context.get_parameter_source("out") is ParameterSource.COMMANDLINE else stored.out
    return replace(
        stored,
        sources=given.sources or stored.sources,
        text_given=bool(given.sources),
        out=out or folder / "model.safetensors",  # a run started from Python may have kept its model in memory
        cache=given.cache or stored.cache,
        report=given.report,
        force=given.force,
    )


def repeated_settings(context: click.Context, given: "RunSettings", path: Path) -> "RunSettings":
    """Returns the settings of the run that made the model at `path`.

    Raises:
        click.UsageError: the command line gives a setting.
        ModelFileError: the file does not say how the model was trained.
    """
    from charloom.model import load
    from charloom.runs import repeated_training

    fixed = {*_flat(given), "as_bytes", "records"} - {"sources", "out", "cache"}
    surplus = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name in fixed and context.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE
    ]
    if surplus:
        raise click.UsageError(f"--repeat takes every setting from the model: leave out {', '.join(surplus)}", context)
    model = load(path)
    return replace(
        given,
        text=model.text,
        network=model.settings,
        training=repeated_training(model, str(path)),
        repeated=model,
        repeated_file=path,
    )


def _flat(settings: "RunSettings") -> dict[str, Any]:
    sections = settings.as_json()
    return {**sections, **sections["text"], **sections["network"], **sections["training"]}


def _shown(name: str, value: Any) -> str:
    if name == "budget" and value is not None:
        return shortest_seconds(value)
    return "not given" if value is None else str(value)
