"""What is measured, and what charloom should reach."""

from dataclasses import asdict, dataclass
from typing import Any

VOCABULARY, EMBEDDING = 57, 42
CHARACTERS = 600_893
"""Of the Nietzsche ladder, whose text these figures stand for; any text of as many characters costs the same."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """A network and the steps that it is trained with.

    Attributes:
        cell: lstm, gru or elman.
        layers: of `hidden` units.
        batch_size: texts side by side.
        sequence_length: characters a row in a step.
        wanted: times PyTorch's speed that must be reached, and that are aimed at; None where nothing is asked.
    """

    cell: str
    layers: int
    hidden: int
    batch_size: int
    sequence_length: int
    wanted: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        """As people call it."""
        cell = {"lstm": "LSTM", "gru": "GRU", "elman": "Elman"}[self.cell]
        layers = f"{self.layers} × " if self.layers > 1 else ""
        return f"{cell} {layers}{self.hidden}, {self.batch_size} × {self.sequence_length}"

    @property
    def operations(self) -> int:
        """Floating-point operations that a character's training needs.

        A product of n weights is 2n operations forward and 4n backward, for the gradients of its input and of its
        weights. The recurrent kernels, the input kernels of the second layer on, and the head are products; the first
        layer's input is a row of a table. The rest (gates, Adam, the table itself) is left out.
        """
        gates = {"lstm": 4, "gru": 3, "elman": 1}[self.cell]
        recurrent = self.layers * gates * self.hidden**2
        between = (self.layers - 1) * gates * self.hidden**2
        return 6 * (recurrent + between + self.hidden * VOCABULARY)

    def as_json(self) -> dict[str, Any]:
        """For the peers."""
        return {name: value for name, value in asdict(self).items() if name != "wanted"}


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """An LSTM that writes.

    Attributes:
        hidden: units.
        streams: texts side by side.
        wanted: as in `Training`, of PyTorch's speed.
        wanted_of_keras: the same of Keras's.
        wanted_speed: characters per second.
    """

    hidden: int
    streams: int
    wanted: tuple[float, float] | None = None
    wanted_of_keras: tuple[float, float] | None = None
    wanted_speed: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        """As people call it."""
        return f"LSTM {self.hidden}, {'one stream' if self.streams == 1 else f'{self.streams} streams together'}"

    def as_json(self) -> dict[str, Any]:
        """For the peers."""
        return {"hidden": self.hidden, "streams": self.streams}

    @property
    def operations(self) -> int:
        """Floating-point operations of the products that a character takes."""
        return 2 * (4 * self.hidden**2 + self.hidden * VOCABULARY)


TRAINING = (
    Training(cell="lstm", layers=1, hidden=512, batch_size=64, sequence_length=8, wanted=(1.5, 2.0)),
    Training(cell="lstm", layers=1, hidden=512, batch_size=64, sequence_length=64),
    Training(cell="lstm", layers=1, hidden=512, batch_size=32, sequence_length=64, wanted=(1.8, 2.4)),
    Training(cell="lstm", layers=1, hidden=512, batch_size=16, sequence_length=64, wanted=(2.0, 3.0)),
    Training(cell="lstm", layers=2, hidden=128, batch_size=50, sequence_length=50, wanted=(1.5, 2.5)),
    Training(cell="lstm", layers=3, hidden=512, batch_size=50, sequence_length=50),
    Training(cell="gru", layers=1, hidden=512, batch_size=64, sequence_length=8),
    Training(cell="elman", layers=1, hidden=256, batch_size=64, sequence_length=8),
)
SHARE_OF_PEAK = (TRAINING[2], (0.52, 0.70))
MEGABYTES = (TRAINING[1], (400, 250))
ONE_TO_ONE = {"compilation included": (20.0, 30.0), "compilation apart": (150.0, 300.0)}
WRITING = (
    Sampling(hidden=256, streams=1),
    Sampling(hidden=512, streams=1, wanted=(6, 15), wanted_of_keras=(600, 1500)),
    Sampling(hidden=1024, streams=1),
    Sampling(hidden=256, streams=64),
    Sampling(hidden=512, streams=64, wanted_speed=(90_000, 115_000)),
    Sampling(hidden=1024, streams=64),
)
