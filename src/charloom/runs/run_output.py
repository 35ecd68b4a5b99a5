"""Where a run writes its model and its report, and how it saves the model at the end."""

from collections.abc import Generator

from charloom.artifacts import InputFiles, Output
from charloom.errors import OutputError
from charloom.model import MODEL, TextModel
from charloom.reports import PAGE
from charloom.runs.run_folder import RunFolder
from charloom.runs.run_settings import RunSettings
from charloom.text import Sources
from charloom.training import Event, Notice, Saved


def model_output(settings: RunSettings, folder: RunFolder | None, inputs: InputFiles) -> Output | None:
    """Returns where to write the model; None to keep it in memory.

    Raises:
        OutputError: the file cannot be written, or must not be replaced.
    """
    if settings.out is None:
        return None
    if folder is None:
        return Output(settings.out, MODEL, inputs, is_default=settings.out_is_default, force=settings.force)
    if folder.uses(settings.out):
        raise OutputError(f"cannot write {settings.out}: the run folder uses this name. Give another name.")
    return Output(
        settings.out,
        MODEL,
        inputs,
        is_default=settings.out_is_default,
        force=settings.force,
        own=folder.outputs() if settings.resume else (),
        record=folder.record_output,
    )


def report_page(settings: RunSettings, output: Output | None, sources: Sources) -> Output | None:
    """Returns where the caller can write a report, next to the model; None if the settings do not ask for one."""
    if not settings.report or output is None:
        return None
    inputs = InputFiles([*sources.paths, output.path], standard_input="-" in settings.sources)
    return Output(output.path.with_suffix(".html"), PAGE, inputs, is_default=True)


def save_model(model: TextModel, output: Output) -> Generator[Event, None, Output]:
    """Writes the model and returns where. It gets another name if another file has taken its name during the run."""
    if output.is_taken:
        aside = output.fallback()
        yield Notice(f"another file has been written to {output.path}: charloom writes the model to {aside.path}")
        output = aside
    output.write(model.to_bytes())
    yield Saved(output.path)
    if (kept := output.finish()) is not None:
        yield Notice(f"{output.path}: charloom kept the earlier model as {kept} (--force replaces it)")
    return output
