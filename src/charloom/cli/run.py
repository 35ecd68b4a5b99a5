"""The `charloom` command: its commands, and how whatever goes wrong becomes one line and an exit status."""

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
from charloom.cli.options import INTERRUPTED, WRONG_DATA, WRONG_WORDS
from charloom.cli.report import report
from charloom.cli.reproduce import reproduce
from charloom.cli.score import score
from charloom.cli.serve import serve
from charloom.cli.show import show
from charloom.cli.streams import flush_results, forget_output, tell
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


def run(arguments: Sequence[str], began: float | None = None) -> int:
    """Returns the exit status of the command line `arguments`.

    Args:
        arguments: without the program's name.
        began: when the command began, by `time.monotonic`, which a budget counts from; None for now.
    """
    began = time.monotonic() if began is None else began
    try:
        # Not charloom.main: it has its own way with interrupts and closed pipes.
        with charloom.make_context("charloom", list(arguments) or ["--help"], obj=began) as context:
            status: int | None = charloom.invoke(context)
        flush_results()
        return status or 0
    except click.exceptions.Exit as finished:
        return finished.exit_code
    except click.NoSuchOption as error:
        renamed = _RENAMED.get(error.option_name)
        said = error.format_message() if renamed is None else f"no such option: {error.option_name}. {renamed}"
        return _refused(error.ctx.info_name if error.ctx and error.ctx.parent else None, said)
    except click.UsageError as error:
        return _refused(error.ctx.info_name if error.ctx and error.ctx.parent else None, error.format_message())
    except SettingError as error:
        named = next((word for word in arguments if word in charloom.commands), None)
        return _refused(named, f"{_option_of(error.setting)} {error.problem}.")
    except CharloomError as error:
        _say(str(error))
        return WRONG_DATA
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        forget_output()  # the reader of standard output has closed it; writing to standard error never fails
        return 0
    except OSError as error:
        if error.filename:
            _say(f"{error.filename}: {error.strerror or error}.")
        else:  # files are opened by name: only standard output is not
            _say(_CLOSED if error.errno == errno.EBADF else _NOT_WRITTEN.format(error.strerror or error))
        forget_output()
        return WRONG_DATA
    except MemoryError:
        _say(_OUT_OF_MEMORY)
        return WRONG_DATA
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) or (error.path or "").endswith(".py"):  # a fault of charloom's
            raise
        _say(f"cannot load a library: {error}. Raise the limit, if ulimit -v has one, or install charloom again.")
        return WRONG_DATA
    except (RuntimeError, AssertionError) as error:
        # JAX has no classes for what a user can put right.
        problem = _OUT_OF_MEMORY if "RESOURCE_EXHAUSTED" in str(error) else _device_problem()
        if problem is None:
            raise
        _say(problem)
        return WRONG_DATA


_RENAMED = {
    "--lanes": "Use --batch-size.",
    "--unroll": "Use --sequence-length.",
    "--updates": "Use --steps.",
    "--weight-drop": "Use --weight-dropout.",
    "--cold-starts": "Use --state-reset-probability.",
    "--adapt": "Use --dynamic-evaluation.",
    "--pace": "The step plan is in the model file: use --repeat MODEL.",
    "--keep-copies": "Copies of held-out records always stay in the training part.",
}
"""Options by their earlier names."""
_LONGEST = 1_000
"""Characters of a line on standard error; a name that is no path may be of megabytes."""
_CLOSED = "standard output is closed. Send it to a file, or to /dev/null."
_NOT_WRITTEN = "cannot write standard output: {}. Send it to another place."
_OUT_OF_MEMORY = "out of memory. Use a smaller model or a shorter text, or end other programs."


def _device_problem() -> str | None:
    """Returns why JAX computes nothing at all; None where it does, or was not loaded."""
    if "jax" not in sys.modules:
        return None
    import jax

    try:
        jax.devices()
    except Exception as error:  # a RuntimeError, or an assertion that fails
        platforms = os.environ.get("JAX_PLATFORMS")
        if platforms is None:
            return f"JAX cannot use this machine: {shortened(str(error))}. Set JAX_PLATFORMS=cpu."
        return (
            f"JAX_PLATFORMS={shortened(platforms)}: JAX finds no such device here. Unset it, or set JAX_PLATFORMS=cpu."
        )
    return None


def _option_of(setting: str) -> str:
    """Returns the option that sets `setting`, by the parameters' names."""
    for command in charloom.commands.values():
        for parameter in command.params:
            if parameter.name == setting and isinstance(parameter, click.Option):
                return parameter.opts[0]
    return setting


def _refused(command: str | None, problem: str) -> int:
    help_page = f"charloom {command} --help" if command else "charloom --help"
    problem = problem if problem.endswith((".", "?", "!")) else f"{problem}."
    lead = problem[0] if problem[1:2].isupper() else problem[0].lower()  # the name of a variable stays as it is
    _say(f"{lead}{problem[1:]} See {help_page}.")
    return WRONG_WORDS


def _say(line: str) -> None:
    if len(line) > _LONGEST:  # what is wrong stands before a name or behind it
        line = f"{line[: _LONGEST // 2]}…{line[-_LONGEST // 2 :]}"
    tell(f"charloom: {line}")
