"""Plots a run's events with TensorBoard."""

import secrets
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from charloom.artifacts import cannot_write, make_folder
from charloom.errors import CharloomError, OutputError
from charloom.training import Evaluation, Event, Progress
from charloom.units import bits_from_nats


class TensorBoardWriter:
    """Writes event files into a folder, starting with the first event that has something to plot. A context manager.

    When a resumed run, or a run that went back, repeats steps, TensorBoard hides their earlier points.

    Raises:
        CharloomError: tensorboardX is not installed.
    """

    def __init__(self, folder: Path):
        if find_spec("tensorboardX") is None:
            raise CharloomError(
                "--tensorboard needs the package tensorboardX. Install it: pip install 'charloom[tensorboard]'."
            )
        self._folder = folder
        self._writer: Any = None
        self._has_failed = False
        self._step = 0  # the step of the last point

    def __enter__(self) -> "TensorBoardWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            with suppress(OSError):  # everything up to the last evaluation has been written
                self._writer.close()

    def add(self, event: Event) -> None:
        """Writes an event's points. After one failure this writes nothing more.

        Raises:
            OutputError: the file cannot be written.
        """
        if self._has_failed:
            return
        try:
            if isinstance(event, Progress):
                self._scalar("training/bits_per_char", bits_from_nats(event.train_nats_per_char), event.step)
                self._scalar("training/chars_per_second", event.chars_per_second, event.step)
            elif isinstance(event, Evaluation):
                self._scalar("validation/bits_per_char", bits_from_nats(event.validation_nats_per_char), event.step)
                self._writer.flush()
        except OutputError:
            self._has_failed = True
            raise
        except OSError as error:
            self._has_failed = True
            raise OutputError(cannot_write(self._folder, error)) from error

    def _scalar(self, name: str, value: float, step: int) -> None:
        from tensorboardX import summary
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event as Record
        from tensorboardX.proto.event_pb2 import SessionLog

        # Not SummaryWriter: its thread would end when the disk is full, and the run would then wait for it forever.
        is_first = self._writer is None
        if is_first:
            make_folder(self._folder)
            # A random suffix, because tensorboardX's names differ only by seconds, and another run could overwrite one.
            self._writer = EventsWriter(str(self._folder / "events"), f".{secrets.token_hex(4)}")
        if is_first or step < self._step:
            hide = SessionLog(status=SessionLog.START)
            self._writer.write_event(Record(wall_time=time.time(), step=step, session_log=hide))
        self._step = step
        self._writer.write_event(Record(wall_time=time.time(), step=step, summary=summary.scalar(name, value)))
