"""`charloom show`."""

import json
import platform
from pathlib import Path
from typing import Any

import click

from charloom import __version__
from charloom.cli.options import FilePath, json_option
from charloom.cli.streams import print_line, print_lines


@click.command()
@click.argument("models", type=FilePath(), nargs=-1, metavar="[MODEL [MODEL]]")
@json_option
def show(models: tuple[Path, ...], as_json: bool) -> None:
    """Show a model, compare two, or describe this machine.

    With --json charloom prints one object per line.

    \b
    charloom show
    charloom show book.safetensors --json
    charloom show book.safetensors other.safetensors
    """
    if len(models) > 2:
        raise click.UsageError(f"show compares two models: give at most two, got {len(models)}.")
    if not models:
        columns = [_machine()]
    else:
        from charloom.description import metadata, summary
        from charloom.model import load

        columns = [metadata(model) if as_json else summary(model) for model in map(load, models)]
    if as_json:
        for column in columns:
            print_line(json.dumps(column))
        return
    if len(columns) == 2:
        _print_compared(models, columns)
        return
    width = max(map(len, columns[0]))
    for name, value in columns[0].items():
        print_line(f"{name:<{width}}  {value}")


def _print_compared(models: tuple[Path, ...], columns: list[dict[str, str]]) -> None:
    """Prints each value that the models share once, and values that differ below each other."""
    a, b = columns
    names = [*a, *(name for name in b if name not in a)]
    width = max(map(len, names))
    print_lines(f"{'':<{width}}  {letter} {model}" for letter, model in zip("AB", models, strict=True))
    for name in names:
        values = [column.get(name, "–") for column in columns]
        if values[0] == values[1]:
            print_line(f"{name:<{width}}    {values[0]}")
        else:
            print_lines([f"{name:<{width}}  A {values[0]}", f"{'':<{width}}  B {values[1]}"])


def _machine() -> dict[str, Any]:
    from charloom.kernels import bfloat16_instructions, kernels_in_use
    from charloom.machine import available_cores, jax_info, processor_name

    kernels = kernels_in_use()
    return {
        "charloom": __version__,
        "python": platform.python_version(),
        **jax_info(),
        "processor": processor_name(),
        "cores": available_cores(),
        "kernels": f"{kernels.name}: {kernels.why}",
        "bfloat16": bfloat16_instructions() or "no fast instructions",
    }
