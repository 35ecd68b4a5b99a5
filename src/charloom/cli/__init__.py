"""The command line: the only place that prints. Command modules load JAX only when they run."""

import sys
import time

# Whatever is imported here is imported while Ctrl-C still raises.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

__all__ = ["main"]


def main(arguments: "Sequence[str] | None" = None) -> "NoReturn":
    """Runs the command line and exits: 0 done, 2 for wrong words, 1 for anything else, 130 for Ctrl-C."""
    began = time.monotonic()  # on a busy machine the imports take seconds
    try:
        # Nothing else is imported before: until signals are watched, Ctrl-C raises wherever Python happens to be.
        from charloom.cli.interrupt import leave, watch_signals
        from charloom.cli.streams import open_streams

        open_streams()
        watch_signals()
        from charloom.cli.run import run
        from charloom.machine import own_process

        own_process()
    except KeyboardInterrupt:
        sys.exit(130)
    leave(run(sys.argv[1:] if arguments is None else arguments, began))
