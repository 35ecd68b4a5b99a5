"""The `charloom` command: its subcommands, and how each error becomes one line and an exit status."""

import errno
import os
import sys
import time
from collections.abc import Sequence

import click

from charloom import __version__
from charloom.cli.classify import classify
from charloom.cli.corpora import corpora
from charloom.cli.generate import generate
from charloom.cli.options import FAILURE, INTERRUPTED, USAGE_ERROR
from charloom.cli.report import report
from charloom.cli.reproduce import reproduce
from charloom.cli.score import score
from charloom.cli.serve import serve
from charloom.cli.show import show
from charloom.cli.streams import discard_output, flush_results, print_message
from charloom.cli.train import train
from charloom.errors import CharloomError, SettingError
from charloom.printable import shortened


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="charloom", message="%(prog)s %(version)s")
def charloom() -> None:
    """Train small character-level models on your own text, and use them.

    \b
    charloom train book.txt --budget 2m
    charloom generate book.safetensors --prompt "Once upon"
    charloom score book.safetensors chapter.txt
    """


for _command in (train, generate, score, classify, report, show, serve, reproduce, corpora):
    charloom.add_command(_command)


def run(arguments: Sequence[str], started: float | None = None) -> int:
    """Returns the exit status of the command line `arguments`.

    Args:
        arguments: without the program's name.
        started: when the command started, by `time.monotonic`. A budget counts from then. None means now.
    """
    started = time.monotonic() if started is None else started
    try:
        # Not charloom.main, because it handles interrupts and closed pipes differently.
        with charloom.make_context("charloom", list(arguments) or ["--help"], obj=started) as context:
            status: int | None = charloom.invoke(context)
        flush_results()
        return status or 0
    except click.exceptions.Exit as finished:
        return finished.exit_code
    except click.NoSuchOption as error:
        options = {name for parameter in (error.ctx.command.params if error.ctx else ()) for name in parameter.opts}
        renamed = _RENAMED.get(error.option_name)
        problem = error.format_message()
        if renamed in options:
            problem = f"no such option: {error.option_name}. Use {renamed}."
        return _usage_error(error.ctx.info_name if error.ctx and error.ctx.parent else None, problem)
    except click.UsageError as error:
        return _usage_error(error.ctx.info_name if error.ctx and error.ctx.parent else None, error.format_message())
    except SettingError as error:
        command = next((word for word in arguments if word in charloom.commands), None)
        return _usage_error(command, f"{_option_of(error.setting)} {error.problem}.")
    except CharloomError as error:
        _print_error(str(error))
        return FAILURE
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        discard_output()  # the reader of standard output closed it; writing to standard error never fails
        return 0
    except OSError as error:
        if error.filename:
            _print_error(f"{error.filename}: {error.strerror or error}.")
        else:  # charloom opens files by name, so this is standard output
            _print_error(_CLOSED if error.errno == errno.EBADF else _NOT_WRITTEN.format(error.strerror or error))
        discard_output()
        return FAILURE
    except MemoryError:
        _print_error(_OUT_OF_MEMORY)
        return FAILURE
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) or (error.path or "").endswith(".py"):  # a bug in charloom
            raise
        _print_error(
            f"cannot load a library: {error}. If ulimit -v sets a limit, raise it; otherwise install charloom again."
        )
        return FAILURE
    except (RuntimeError, AssertionError) as error:
        # JAX has no exception classes for problems that a user can fix.
        device_problem = _OUT_OF_MEMORY if "RESOURCE_EXHAUSTED" in str(error) else _device_problem()
        if device_problem is None:
            raise
        _print_error(device_problem)
        return FAILURE


_RENAMED = {
    "--lanes": "--batch-size",
    "--unroll": "--sequence-length",
    "--updates": "--steps",
    "--weight-drop": "--weight-dropout",
    "--cold-starts": "--state-reset-probability",
    "--adapt": "--dynamic-evaluation",
    "--pace": "--repeat",
    "--lr": "--learning-rate",
    "--hidden-size": "--hidden",
    "--num-layers": "--layers",
    "--seq-length": "--sequence-length",
}
"""Former names of options, and names in other programs, with charloom's."""
_MAX_ERROR_CHARACTERS = 1_000
"""Longest error line. A wrong argument may have megabytes."""
_CLOSED = "standard output is closed. Redirect it to a file, or to /dev/null."
_NOT_WRITTEN = "cannot write to standard output: {}. Redirect it to another file."
_OUT_OF_MEMORY = "out of memory. Use a smaller model or a shorter text, or close other programs."


def _device_problem() -> str | None:
    """Returns why JAX cannot compute at all; None if it can, or was not loaded."""
    if "jax" not in sys.modules:
        return None
    import jax

    try:
        jax.devices()
    except Exception as error:  # a RuntimeError or a failed assertion
        platforms = os.environ.get("JAX_PLATFORMS")
        if platforms is None:
            return f"JAX cannot use this machine: {shortened(str(error))}. Set JAX_PLATFORMS=cpu."
        return (
            f"JAX_PLATFORMS={shortened(platforms)}: JAX found no such device here. Unset it, or set JAX_PLATFORMS=cpu."
        )
    return None


def _option_of(setting: str) -> str:
    """Returns the option that sets `setting`, found by its parameter name."""
    for command in charloom.commands.values():
        for parameter in command.params:
            if parameter.name == setting and isinstance(parameter, click.Option):
                return parameter.opts[0]
    return setting


def _usage_error(command: str | None, problem: str) -> int:
    help_page = f"charloom {command} --help" if command else "charloom --help"
    problem = problem if problem.endswith((".", "?", "!")) else f"{problem}."
    initial = problem[0] if problem[1:2].isupper() else problem[0].lower()  # a variable's name stays as it is
    _print_error(f"{initial}{problem[1:]} See {help_page}.")
    return USAGE_ERROR


def _print_error(line: str) -> None:
    if len(line) > _MAX_ERROR_CHARACTERS:  # the problem is stated before or after a long name
        line = f"{line[: _MAX_ERROR_CHARACTERS // 2]}…{line[-_MAX_ERROR_CHARACTERS // 2 :]}"
    print_message(f"charloom: {line}")
