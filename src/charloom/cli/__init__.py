"""The command line: the only place that prints. Command modules load JAX only when they run."""

import sys
import time

# Python imports these modules while Ctrl-C still raises.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

__all__ = ["main"]


def main(arguments: "Sequence[str] | None" = None) -> "NoReturn":
    """Runs the command line and exits: 0 for success, 2 for a usage error, 1 for other errors, 130 for Ctrl-C."""
    started = time.monotonic()  # on a busy machine the imports take seconds
    try:
        # Watch signals before importing anything else: until then Ctrl-C raises wherever Python happens to be.
        from charloom.cli.interrupt import exit_now, watch_signals
        from charloom.cli.streams import open_streams

        open_streams()
        watch_signals()
        from charloom.cli.run import run
        from charloom.machine import own_process

        own_process()
    except KeyboardInterrupt:
        sys.exit(130)
    exit_now(run(sys.argv[1:] if arguments is None else arguments, started))
