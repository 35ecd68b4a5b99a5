"""The command line: the only place that prints. Command modules load JAX only when they run."""

import sys
from collections.abc import Sequence
from typing import NoReturn

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits: 0 done, 2 for wrong words, 1 for anything else, 130 for Ctrl-C."""
    try:
        from charloom.cli.run import run  # here, for a Ctrl-C while modules load is no traceback either
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))
