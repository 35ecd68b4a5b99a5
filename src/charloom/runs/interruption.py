"""Ctrl-C while Python trains: the call returns the best model so far instead of losing it."""

import signal
import threading
import warnings
from collections.abc import Callable
from types import FrameType

from charloom.runs.run_settings import RunSettings
from charloom.runs.training_run import TrainingResult, run_training
from charloom.training import Event, Progress, follow


def train_interruptibly(
    settings: RunSettings, on_event: Callable[[Event], None], began: float | None = None
) -> TrainingResult:
    """Returns the result of a run, which the first Ctrl-C stops in good order, with a warning.

    Ctrl-C is taken over in the main thread only, only where Python's own handler is in place, and only until the call
    returns. Before the first steps are done there is no model to return. Then, and the second time, Ctrl-C raises as
    usual.

    Args:
        settings: of the run.
        on_event: is called with each event.
        began: as of `run_training`.

    Raises:
        CharloomError: as `run_training` raises it.
        KeyboardInterrupt: there is no model yet, or Ctrl-C was pressed twice.
    """
    wish = _Wish()

    def follow_event(event: Event) -> None:
        wish.has_model = wish.has_model or isinstance(event, Progress)
        on_event(event)

    is_taken = _is_ctrl_c_pythons()
    if is_taken:
        signal.signal(signal.SIGINT, wish.handle)
    try:
        result = follow(run_training(settings, lambda: wish.came, began), follow_event)
    finally:
        if is_taken:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if wish.came:
        warnings.warn(
            f"training was interrupted after {result.stopped.step:,} steps: this is the best model so far",
            RuntimeWarning,
            stacklevel=3,  # whoever called `train` or `resume`
        )
    return result


class _Wish:
    """What Ctrl-C asks for."""

    def __init__(self) -> None:
        self.has_model = False
        self.came = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        if not self.has_model or self.came:
            raise KeyboardInterrupt
        self.came = True


def _is_ctrl_c_pythons() -> bool:
    is_main = threading.current_thread() is threading.main_thread()
    return is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
