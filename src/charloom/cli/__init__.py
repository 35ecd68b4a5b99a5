"""The command line: the only place that prints. Command modules load JAX only when they run."""

from charloom.cli.main import main

__all__ = ["main"]
