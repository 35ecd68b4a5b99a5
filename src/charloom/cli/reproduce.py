"""`charloom reproduce`."""

from pathlib import Path

import click

from charloom.cli.interrupt import Interrupt
from charloom.cli.options import FAILURE, FolderPath, set_threads, threads_option
from charloom.cli.streams import print_message, print_summary


@click.command()
@click.argument("names", nargs=-1, metavar="[STUDY[/EXPERIMENT]]...")
@click.option(
    "--out",
    type=FolderPath(),
    default=Path("charloom-results"),
    show_default=True,
    metavar="DIR",
    help="Folder for the results. charloom skips experiments that are finished there.",
)
@click.option("--quick", is_flag=True, help="Run a short version of each experiment, about two minutes in all.")
@click.option("--full", is_flag=True, help="Run everything as published, even if it takes hours.")
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Random seed of the initial weights and the shuffling."
)
@click.option("--force", is_flag=True, help="Replace the results of another run in DIR.")
@threads_option
def reproduce(
    names: tuple[str, ...],
    out: Path,
    quick: bool,
    full: bool,
    seed: int,
    force: bool,
    threads: int | None,
) -> int:
    """Rerun the experiments of four well-known tutorials.

    The studies are nietzsche, alphabet, shakespeare-bytes and english-major; charloom runs all of them by default. DIR
    gets results.json, report.html with the published numbers next to yours, and the models. Ctrl-C stops; the same
    command continues.

    \b
    charloom reproduce --quick --out quick
    charloom reproduce alphabet --out alphabet
    charloom reproduce nietzsche/char_rnn nietzsche/char_stateful_rnn --out lesson
    """
    if quick and full:
        raise click.UsageError("--quick and --full exclude each other: give only one of them.")
    set_threads(threads)

    from charloom.cli.study_display import StudyDisplay
    from charloom.studies.reproduce import REPORT_FILE, ReproduceSettings, StudyEvent
    from charloom.studies.reproduce import reproduce as run
    from charloom.training import follow

    settings = ReproduceSettings(
        names=names, out=out, mode="quick" if quick else "full" if full else "default", seed=seed, force=force
    )
    closing_action = f"run the same command {'without --force ' if force else ''}to resume"
    with StudyDisplay() as display, Interrupt(display.print, closing_action) as interrupt:

        def on_event(event: StudyEvent) -> None:
            interrupt.armed = True
            display.show(event)

        problems = follow(run(settings, should_stop=lambda: bool(interrupt.signal_number)), on_event)
    if interrupt.signal_number:
        return interrupt.status
    print_summary([f"{out / REPORT_FILE}: open it in a browser"], may_be_closed=True)
    if problems:
        print_message(f"charloom: not finished: {'; '.join(problems)}")
        return FAILURE
    return 0
