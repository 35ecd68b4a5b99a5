"""Progress of a run: bars and samples on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from textwrap import indent
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TaskID, TextColumn

from charloom.cli.interrupt import before_exit
from charloom.printable import one_line, printable_lines
from charloom.training import Encoding, Evaluating, Evaluation, Event, Notice, Sample, Stopped
from charloom.training import Progress as TrainingProgress
from charloom.units import LONG_WAIT_SECONDS, bits_from_nats, format_seconds

_SMOOTHING = 0.9
_Display = TypeVar("_Display", bound="Display")


class Display:
    """A bar at the bottom of a terminal, and lines above it on standard error; without a terminal only the lines."""

    def __init__(self, *columns: ProgressColumn) -> None:
        self._console = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)
        self._bars = Progress(
            *columns,
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID | None = None
        self._exit_stack = ExitStack()

    def __enter__(self: _Display) -> _Display:
        self._bars.start()
        self._exit_stack.enter_context(before_exit(self._bars.stop))  # shows the cursor again
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit_stack.close()
        self._bars.stop()

    def print(self, line: str) -> None:
        """Prints a line above the bar."""
        self._console.print(one_line(line), markup=False)


class PhaseTimer:
    """Measures a training run's dispatches and evaluations, to estimate when the run can stop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()
        self._seconds: dict[type, float] = {}  # of the last phase of each kind
        self._phase: type = TrainingProgress

    def follow(self, event: Event) -> None:
        """Records when the event came."""
        now = self._clock()
        if isinstance(event, TrainingProgress | Evaluation):
            self._seconds[type(event)] = now - self._last
            self._phase = TrainingProgress
        elif isinstance(event, Evaluating):
            if event.seconds is not None:
                self._seconds[Evaluation] = event.seconds
            self._phase = Evaluation
        self._last = now

    def seconds_left(self) -> float | None:
        """Returns the seconds until the current phase ends, if it takes as long as the last of its kind.

        If it has already taken longer, the estimate is that time again. None if there was no phase of its kind.
        """
        expected = self._seconds.get(self._phase)
        if expected is None:
            return None
        passed = self._clock() - self._last
        return expected - passed if expected > passed else expected


class TrainingDisplay(Display):
    """Shows the events of a training run."""

    def __init__(self) -> None:
        super().__init__()
        self._train_nats: float | None = None
        self._reading: TaskID | None = None

    def show(self, event: Event) -> None:
        """Shows one event."""
        if isinstance(event, Encoding):
            self._show_encoding(event)
            return
        if self._reading is not None:
            self._bars.update(self._reading, visible=False)
        if isinstance(event, Notice):
            self.print(event.text)
        elif isinstance(event, TrainingProgress):
            self._show_progress(event)
        elif isinstance(event, Evaluating):
            self._show_evaluating(event)
        elif isinstance(event, Evaluation):
            mark = "" if event.improved else " (no improvement)"
            self.print(
                f"epoch {event.epoch:6.2f}   training {bits_from_nats(event.train_nats_per_char):.3f}   "
                f"validation {bits_from_nats(event.validation_nats_per_char):.3f} bits per character{mark}"
            )
        elif isinstance(event, Sample):
            self._console.print(indent(printable_lines(event.text.strip()), "    "), style="italic", markup=False)
        elif isinstance(event, Stopped) and self._task is not None:
            self._bars.update(self._task, state="scoring the held-out text")

    def _show_evaluating(self, event: Evaluating) -> None:
        if self._task is not None and event.seconds is not None and event.seconds > LONG_WAIT_SECONDS:
            self._bars.update(self._task, state=f"scoring the held-out text, about {format_seconds(event.seconds)}")

    def _show_encoding(self, event: Encoding) -> None:
        if event.is_waiting:
            self.print(f"waiting for another charloom process that is using {event.folder}")
            return
        if self._reading is None:
            self.print(f"encoding the text into {event.folder}, for this run and later ones")
            self._reading = self._bars.add_task("", total=event.of, state="")
        self._bars.update(self._reading, completed=event.read, total=event.of, state=f"{event.read / 2e6:,.0f} MB")

    def _show_progress(self, event: TrainingProgress) -> None:
        nats = event.train_nats_per_char
        self._train_nats = nats if self._train_nats is None else _SMOOTHING * self._train_nats + (1 - _SMOOTHING) * nats
        state = [f"{bits_from_nats(self._train_nats):.3f} bits per character"]
        if event.chars_per_second:
            state.append(f"{event.chars_per_second:,.0f} characters per second")
        if event.seconds_left is not None:
            state.append(f"{format_seconds(event.seconds_left)} left")
        if self._task is None:
            self._task = self._bars.add_task("", total=event.steps, state="")
        self._bars.update(self._task, completed=event.step, total=event.steps, state=" · ".join(state))
