"""The workloads, and the goals for charloom's figures."""

from dataclasses import asdict, dataclass
from typing import Any

from charloom.cell_facts import CELL_FACTS, CellName

VOCABULARY, EMBEDDING, TEMPERATURE = 57, 42, 0.8
CHARACTERS = 600_893
"""The length of the text in the Nietzsche study. Any text of this length costs the same."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """A network, and the size of its training steps.

    Attributes:
        cell: lstm, gru or elman.
        layers: of `hidden` units.
        batch_size: rows that a step reads in parallel.
        sequence_length: characters per row in a step.
        goals: required and targeted speedup over the best peer; None without a goal.
    """

    cell: CellName
    layers: int
    hidden: int
    batch_size: int
    sequence_length: int
    goals: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        """How tables name it."""
        cell = CELL_FACTS[self.cell].label
        layers = f"{self.layers} × " if self.layers > 1 else ""
        return f"{cell} {layers}{self.hidden}, {self.batch_size} × {self.sequence_length}"

    @property
    def operations(self) -> int:
        """Floating-point operations per character of training.

        A product of n weights takes 2n operations forward. Backward it takes 4n, for the gradients of its input and of
        its weights. Products are the recurrent kernels, the input kernels from the second layer on, and the head. The
        first layer reads a row of a table. The count leaves out the rest: gates, Adam and the table itself.
        """
        return 6 * (CELL_FACTS[self.cell].cost(self.hidden, self.layers) + self.hidden * VOCABULARY)

    def as_json(self) -> dict[str, Any]:
        """What the peers get."""
        return {name: value for name, value in asdict(self).items() if name != "goals"}


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """An LSTM that generates text.

    Attributes:
        hidden: units.
        streams: texts that are generated in parallel.
        goals: required and targeted characters per second; None without a goal.
    """

    hidden: int
    streams: int
    goals: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        """How tables name it."""
        return f"LSTM {self.hidden}, {'one stream' if self.streams == 1 else f'{self.streams} streams in parallel'}"

    def as_json(self) -> dict[str, Any]:
        """What the peers get."""
        return {"hidden": self.hidden, "streams": self.streams}

    @property
    def operations(self) -> int:
        """Floating-point operations of the products, per character."""
        return 2 * (4 * self.hidden**2 + self.hidden * VOCABULARY)


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """An LSTM that scores many lines.

    Attributes:
        hidden: units.
        lines: how many.
        goals: required and targeted characters per second.
    """

    hidden: int
    lines: int
    goals: tuple[float, float]

    @property
    def name(self) -> str:
        """How tables name it."""
        return f"LSTM {self.hidden}, {self.lines:,} lines"

    def as_json(self) -> dict[str, Any]:
        """What the peers get."""
        return {"hidden": self.hidden, "lines": self.lines}


@dataclass(frozen=True, kw_only=True)
class Records:
    """An LSTM that generates records, from the command line.

    Attributes:
        hidden: units.
        count: how many.
        length: their mean length in characters.
        goals: required and targeted seconds of the command.
    """

    hidden: int
    count: int
    length: int
    goals: tuple[float, float]

    @property
    def name(self) -> str:
        """How tables name it."""
        return f"LSTM {self.hidden}, {self.count:,} records of {self.length} characters"


TRAINING = (
    Training(cell="lstm", layers=1, hidden=512, batch_size=64, sequence_length=8, goals=(1.8, 2.2)),
    Training(cell="lstm", layers=1, hidden=512, batch_size=64, sequence_length=64),
    Training(cell="lstm", layers=1, hidden=512, batch_size=32, sequence_length=64, goals=(1.5, 1.8)),
    Training(cell="lstm", layers=1, hidden=512, batch_size=16, sequence_length=64, goals=(1.4, 1.7)),
    Training(cell="lstm", layers=2, hidden=128, batch_size=50, sequence_length=50, goals=(1.6, 2.0)),
    Training(cell="lstm", layers=3, hidden=512, batch_size=50, sequence_length=50),
    Training(cell="gru", layers=1, hidden=512, batch_size=64, sequence_length=8, goals=(1.6, 2.0)),
    Training(cell="elman", layers=1, hidden=256, batch_size=64, sequence_length=8),
)
GOALS_OVER_FLOAT32 = (TRAINING[3], (1.5, 1.8))
"""The speedup of charloom's own bfloat16 over its float32."""
GOALS_OF_SHARE = (TRAINING[2], (0.50, 0.65))
"""The share of the peak of bfloat16."""
GOALS_OF_MEGABYTES = (TRAINING[1], (400, 250))
GOALS_OF_ONE_TO_ONE = {"with compilation": (20.0, 30.0), "without compilation": (150.0, 300.0)}
SAMPLING = (
    Sampling(hidden=256, streams=1),
    Sampling(hidden=512, streams=1, goals=(120_000, 200_000)),
    Sampling(hidden=1024, streams=1),
    Sampling(hidden=256, streams=64),
    Sampling(hidden=512, streams=64, goals=(450_000, 700_000)),
    Sampling(hidden=1024, streams=64),
)
SCORING = Scoring(hidden=512, lines=4000, goals=(350_000, 500_000))
RECORDS = Records(hidden=512, count=30_000, length=37, goals=(5.0, 3.0))
