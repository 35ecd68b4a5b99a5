"""Ctrl-C during training from Python: the call returns the best model so far instead of losing it."""

import signal
import threading
import warnings
from collections.abc import Callable
from types import FrameType

from charloom.runs.run_settings import RunSettings
from charloom.runs.training_run import TrainingResult, run_training
from charloom.training import Event, Progress, follow


def train_interruptibly(
    settings: RunSettings, on_event: Callable[[Event], None], started: float | None = None
) -> TrainingResult:
    """Returns the result of a run. The first Ctrl-C stops the run cleanly, with a warning.

    This handles Ctrl-C only in the main thread, only if Python's own handler is in place, and only until the call
    returns. Ctrl-C raises as usual before the first steps, when there is no model to return, and when it is pressed a
    second time.

    Args:
        settings: the run's settings.
        on_event: called with each event.
        started: as for `run_training`.

    Raises:
        CharloomError: as `run_training` raises it.
        KeyboardInterrupt: there is no model yet, or Ctrl-C was pressed twice.
    """
    request = _StopRequest()

    def follow_event(event: Event) -> None:
        request.has_model = request.has_model or isinstance(event, Progress)
        on_event(event)

    handles_ctrl_c = _can_handle_ctrl_c()
    if handles_ctrl_c:
        signal.signal(signal.SIGINT, request.handle)
    try:
        result = follow(run_training(settings, lambda: request.is_made, started), follow_event)
    finally:
        if handles_ctrl_c:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if request.is_made:
        warnings.warn(
            f"training was interrupted after {result.stopped.step:,} steps: this is the best model so far",
            RuntimeWarning,
            stacklevel=3,  # points at the call of `train` or `resume`
        )
    return result


class _StopRequest:
    """A request to stop, made by Ctrl-C."""

    def __init__(self) -> None:
        self.has_model = False
        self.is_made = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        if not self.has_model or self.is_made:
            raise KeyboardInterrupt
        self.is_made = True


def _can_handle_ctrl_c() -> bool:
    is_main = threading.current_thread() is threading.main_thread()
    return is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
