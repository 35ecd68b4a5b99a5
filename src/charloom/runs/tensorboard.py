"""A run's events as TensorBoard shows them."""

from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from charloom.errors import CharloomError
from charloom.training import Evaluation, Event, Progress
from charloom.units import bits_from_nats


class TensorBoardWriter:
    """Writes event files into a folder, from the first event that there is something to plot of; to be closed.

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

    def __enter__(self) -> "TensorBoardWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def add(self, event: Event) -> None:
        """Writes what there is to plot of an event, by the count of updates."""
        if isinstance(event, Progress):
            self._scalar("training/bits_per_char", bits_from_nats(event.train_nats_per_char), event.update)
            self._scalar("training/chars_per_second", event.chars_per_second, event.update)
        elif isinstance(event, Evaluation):
            self._scalar("validation/bits_per_char", bits_from_nats(event.validation_nats_per_char), event.update)
            self._writer.flush()

    def _scalar(self, name: str, value: float, update: int) -> None:
        if self._writer is None:
            from tensorboardX import SummaryWriter

            # What was plotted of updates that are made again is hidden from here on.
            self._writer = SummaryWriter(str(self._folder), purge_step=update)
        self._writer.add_scalar(name, value, update)
