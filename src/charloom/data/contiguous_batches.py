"""Contiguous batches: one long text is read at many positions in parallel, and the state is carried between blocks.

The text is divided into equal parts, and each row begins at one of them, or at a given offset. A row reads without end:
after the last character of the text comes the first. The state is reset only where a document begins.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from charloom.data.block import Block
from charloom.data.stream import TokenStream
from charloom.errors import TooShortError


@dataclass(frozen=True)
class ContiguousBatches:
    """A producer of training blocks from contiguous rows.

    Attributes:
        stream: the text.
        batch_size: how many rows are read in parallel.
        sequence_length: how many characters a row reads in one step.
        offsets: the position where each row begins; None for equal parts.

    Raises:
        TooShortError: there are not enough characters for one sequence per row.

    >>> import numpy as np
    >>> stream = TokenStream.from_documents([np.arange(8)])
    >>> block = ContiguousBatches(stream, batch_size=2, sequence_length=2).block(first_step=1, steps=1, capacity=1)
    >>> block.token_ids[0].tolist(), block.resets[0].tolist()
    ([[1, 2, 3], [5, 6, 7]], [[False, False], [False, False]])
    """

    stream: TokenStream
    batch_size: int
    sequence_length: int
    offsets: Int64[np.ndarray, " batch"] | None = None

    def __post_init__(self) -> None:
        row_length = len(self.stream) // self.batch_size
        if self.sequence_length > row_length:
            raise TooShortError(
                f"sequence_length {self.sequence_length} does not fit: {len(self.stream):,} training "
                f"characters over {self.batch_size} rows leave {row_length} per row. "
                f"Use at most {row_length}, or fewer rows."
                if row_length
                else f"{len(self.stream):,} training characters do not fill {self.batch_size} rows. Use fewer rows."
            )

    @property
    def characters_per_step(self) -> int:
        return self.batch_size * self.sequence_length

    def steps_in(self, epochs: float) -> int:
        """Returns how many steps read the text `epochs` times, at least one."""
        return max(1, round(epochs * len(self.stream) / self.characters_per_step))

    def block(self, first_step: int, steps: int, capacity: int) -> Block:
        """Returns the block of `steps` steps that begins with step `first_step`. Every prediction is scored."""
        block = Block.empty(capacity, self.batch_size, self.sequence_length, steps)
        time_steps = steps * self.sequence_length
        for row in range(self.batch_size):
            begin = row * len(self.stream) // self.batch_size if self.offsets is None else int(self.offsets[row])
            position = begin + first_step * self.sequence_length
            block.fill_row(
                row,
                self.stream.circular(position - 1, time_steps + 1),
                self.stream.circular_starts(position, time_steps),
            )
        return block
