"""Progress of `charloom reproduce`: bars on a terminal, and a line per epoch and experiment."""

from rich.progress import SpinnerColumn

from charloom.cli.terminal import Display
from charloom.reports.study_figures import accuracy_text, loss_text
from charloom.studies.reproduce import ExperimentEnd, ExperimentStart, StudyEvent
from charloom.training import EpochEnd, Notice, Stopped
from charloom.training import Progress as TrainingProgress
from charloom.units import format_seconds


class StudyDisplay(Display):
    """Shows the events of `reproduce`."""

    def __init__(self) -> None:
        super().__init__(SpinnerColumn())
        self._experiment: ExperimentStart | None = None

    def show(self, event: StudyEvent) -> None:
        """Shows one event."""
        if isinstance(event, ExperimentStart):
            self._begin(event)
        elif isinstance(event, TrainingProgress) and self._task is not None:
            left = "" if event.seconds_left is None else f" · {format_seconds(event.seconds_left)} left"
            speed = f" · {event.chars_per_second:,.0f} characters per second" if event.chars_per_second else ""
            state = f"loss {event.train_nats_per_char:.4f}{speed}{left}"
            self._bars.update(self._task, total=event.steps, completed=event.step, state=state)
        elif isinstance(event, EpochEnd):
            self.print(self._epoch_line(event))
        elif isinstance(event, Stopped) and self._task is not None:
            if event.reason == "diverged":
                self.print("    the loss diverged: training ends here")
            self._bars.update(self._task, state="evaluating the model")
        elif isinstance(event, ExperimentEnd):
            self._end(event)
        elif isinstance(event, Notice):
            self.print(f"    {event.text}")

    def _begin(self, event: ExperimentStart) -> None:
        self._experiment = event
        number, experiments = event.place
        self.print(f"{number}/{experiments} {event.name}" + (f": {event.cut}" if event.cut else ""))
        self._drop_bar()
        self._task = self._bars.add_task("", total=None, state="compiling")

    def _epoch_line(self, event: EpochEnd) -> str:
        assert self._experiment is not None  # an experiment starts before its epochs end
        published = self._experiment.published_losses
        line = f"    epoch {event.epoch:>3} of {self._experiment.epochs}   loss {event.loss_nats:.4f}"
        if published and event.epoch <= len(published):
            line += f" (published {published[event.epoch - 1]:.4f})"
        if event.held_out is not None:
            line += f"   held-out loss {event.held_out.nats_per_char:.4f}"
        return f"{line}   accuracy {event.accuracy:.3f}   {event.seconds:.1f} s"

    def _end(self, event: ExperimentEnd) -> None:
        self._drop_bar()
        figures = event.figures
        items = [
            f"{figures['parameters']:,} parameters",
            f"loss {loss_text(figures['losses'][-1])}",
            f"accuracy {accuracy_text(figures)}",
            f"{format_seconds(figures['training_seconds'])} of training",
        ]
        self.print(f"    done: {', '.join(items)}")
        for check in figures["checks"]:
            self.print(f"    {'passed' if check['holds'] else 'FAILED'}: {check['check']}")
        if left_out := figures.get("variants_left_out"):
            self.print(f"    run only with --full: {', '.join(left_out).replace('_', ' ')}")

    def _drop_bar(self) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None
