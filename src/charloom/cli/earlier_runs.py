"""Settings that come from an earlier run: from its folder (`train --resume`) or its model (`train --repeat`)."""

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
    """Returns the settings of the run in `folder`; the text and the files may be in another place now.

    Raises:
        RunFolderError: the command line asks for another setting.
    """
    from charloom.runs import settings_of_run

    held = settings_of_run(folder, samples=True)
    asked, own = (_flat(settings) for settings in (given.from_anywhere(), held))
    differing = []
    for parameter in context.command.params:
        name = {"as_bytes": "units", "records": "delimiter"}.get(str(parameter.name), str(parameter.name))
        if name in ("sources", "out", "cache"):  # the text's digest says whether it is the same
            continue
        is_given = context.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE
        if is_given and name in own and asked[name] != own[name]:
            differing.append(
                f"{parameter.opts[0]} is {_shown(name, own[name])} there, {_shown(name, asked[name])} here"
            )
    if differing:
        raise RunFolderError(
            f"{held.folder} is a run of other settings: {'; '.join(differing)}. Leave them out to resume it, or "
            "begin another run with --run."
        )
    out = given.out if context.get_parameter_source("out") is ParameterSource.COMMANDLINE else held.out
    return replace(
        held,
        sources=given.sources or held.sources,
        text_given=bool(given.sources),
        out=out or folder / "model.safetensors",  # a run that Python began may have kept its model in memory
        cache=given.cache or held.cache,
        report=given.report,
        force=given.force,
    )


def repeated_settings(context: click.Context, given: "RunSettings", path: Path) -> "RunSettings":
    """Returns the settings of the run that made the model at `path`.

    Raises:
        click.UsageError: the command line asks for a setting.
        ModelFileError: the file does not say how it was trained.
    """
    from charloom.model import load
    from charloom.runs import repeated_training

    of_a_run = {*_flat(given), "as_bytes", "records"} - {"sources", "out", "cache"}
    asked = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name in of_a_run
        and context.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE
    ]
    if asked:
        raise click.UsageError(f"--repeat takes every setting from the model: leave out {', '.join(asked)}", context)
    model = load(path)
    return replace(
        given,
        text=model.text,
        network=model.settings,
        training=repeated_training(model, str(path)),
        repeated=model,
    )


def _flat(settings: "RunSettings") -> dict[str, Any]:
    parts = settings.as_json()
    return {**parts, **parts["text"], **parts["network"], **parts["training"]}


def _shown(name: str, value: Any) -> str:
    if name == "budget" and value is not None:
        return shortest_seconds(value)
    return "not given" if value is None else str(value)
