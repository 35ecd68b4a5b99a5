"""Contiguous batches: one long text read at many places at once, with the state carried from block to block.

Row l begins at the l-th of equal parts of the text (or where it is told to) and reads on, without end: past the
text's last character comes its first. So every row's state is always that of a text read from some beginning,
and is reset exactly where a document begins, the text's own beginning among them.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from charloom.data.block import Block
from charloom.data.stream import TokenStream
from charloom.errors import TooShortError


@dataclass(frozen=True)
class ContiguousBatches:
    """A producer of training blocks.

    Attributes:
        stream: the text.
        batch_size: how many places of it are read side by side.
        sequence_length: characters a row reads in one step.
        offsets: where each row begins, any positions; None for equal parts.

    Raises:
        TooShortError: there are not enough characters for a sequence per row.

    >>> import numpy as np
    >>> stream = TokenStream.of_documents([np.arange(8)])
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
                else f"{len(self.stream):,} training characters do not fill {self.batch_size} rows. Use fewer."
            )

    @property
    def characters_per_step(self) -> int:
        return self.batch_size * self.sequence_length

    def steps_in(self, epochs: float) -> int:
        """Returns the steps that read `epochs` times the text, at least one."""
        return max(1, round(epochs * len(self.stream) / self.characters_per_step))

    def block(self, first_step: int, steps: int, capacity: int) -> Block:
        """Returns the block of `steps` steps from `first_step` on, every prediction scored."""
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
