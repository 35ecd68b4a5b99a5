"""The `charloom` command: its commands, and how whatever goes wrong becomes one line and an exit status."""

import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from charloom import __version__
from charloom.cli.corpora import corpora
from charloom.cli.generate import generate
from charloom.cli.show import show
from charloom.cli.train import train
from charloom.errors import CharloomError, SettingError

_WRONG_WORDS, _WRONG_DATA, _INTERRUPTED = 2, 1, 130


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="charloom", message="%(prog)s %(version)s")
def charloom() -> None:
    """Train small character-level models on your own text, and write with them.

    \b
    charloom train book.txt --out book.safetensors
    charloom generate book.safetensors --prompt "Once upon"
    """


for _command in (train, generate, show, corpora):
    charloom.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits: 0 done, 2 for wrong words, 1 for anything else, 130 for Ctrl-C."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Returns the exit status of the command line `arguments`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a text may have letters that the locale has not
            stream.reconfigure(errors="backslashreplace")
    try:
        # Not charloom.main: it has its own way with interrupts and closed pipes.
        with charloom.make_context("charloom", list(arguments) or ["--help"]) as context:
            status: int | None = charloom.invoke(context)
        sys.stdout.flush()
        return status or 0
    except click.exceptions.Exit as finished:
        return finished.exit_code
    except click.UsageError as error:
        return _refused(error.ctx, error.format_message())
    except SettingError as error:
        return _refused(None, f"{_option_of(error.setting)} {error.problem}.")
    except CharloomError as error:
        _say(str(error))
        return _WRONG_DATA
    except (click.Abort, KeyboardInterrupt):
        return _INTERRUPTED
    except BrokenPipeError:
        _forget_output()  # whoever read has had enough
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _say(f"{where}{error.strerror or error}.")
        _forget_output()
        return _WRONG_DATA
    except (MemoryError, RuntimeError) as error:
        # JAX has no class of its own for memory that is not there.
        if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        _say("out of memory. Use a smaller --hidden, fewer --lanes, or a shorter text.")
        return _WRONG_DATA


def _option_of(setting: str) -> str:
    """Returns the option that sets `setting`, by the parameters' names."""
    for command in charloom.commands.values():
        for parameter in command.params:
            if parameter.name == setting and isinstance(parameter, click.Option):
                return parameter.opts[0]
    return setting


def _refused(context: click.Context | None, problem: str) -> int:
    command = context.command_path if context else "charloom"
    _say(f"{problem[0].lower()}{problem[1:]} See {command} --help.")
    return _WRONG_WORDS


def _forget_output() -> None:
    # What could not be written would be tried, and complained of, once more when Python exits.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(line: str) -> None:
    print(f"charloom: {line}", file=sys.stderr)
