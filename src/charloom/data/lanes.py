"""Lanes: one long text read at many places at once, with the state carried from block to block.

Lane l begins at the l-th of equal parts of the text (or where it is told to) and reads on, without end: past the
text's last character comes its first. So every lane's state is always that of a text read from some beginning,
and is reset exactly where a document begins, the text's own beginning among them.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from charloom.data.block import Block
from charloom.data.stream import TokenStream
from charloom.errors import TooShortError


@dataclass(frozen=True)
class Lanes:
    """A producer of training blocks.

    Attributes:
        stream: the text.
        lanes: how many places of it are read side by side.
        unroll_length: characters a lane reads in one update.
        offsets: where each lane begins, any positions; None for equal parts.

    Raises:
        TooShortError: the lanes would not have an unroll of their own each.

    >>> import numpy as np
    >>> stream = TokenStream.of_documents([np.arange(8)])
    >>> block = Lanes(stream, lanes=2, unroll_length=2).block(first_update=1, updates=1, capacity=1)
    >>> block.token_ids[0].tolist(), block.resets[0].tolist()
    ([[1, 2, 3], [5, 6, 7]], [[False, False], [False, False]])
    """

    stream: TokenStream
    lanes: int
    unroll_length: int
    offsets: Int64[np.ndarray, " lanes"] | None = None

    def __post_init__(self) -> None:
        a_lane = len(self.stream) // self.lanes
        if self.unroll_length > a_lane:
            raise TooShortError(
                f"unroll_length {self.unroll_length} does not fit: {len(self.stream):,} training "
                f"characters over {self.lanes} lanes leave {a_lane} a lane. "
                f"Use at most {a_lane}, or fewer lanes."
                if a_lane
                else f"{len(self.stream):,} training characters do not fill {self.lanes} lanes. Use fewer."
            )

    @property
    def characters_per_update(self) -> int:
        return self.lanes * self.unroll_length

    def updates_in(self, epochs: float) -> int:
        """Returns the updates that read `epochs` times the text, at least one."""
        return max(1, round(epochs * len(self.stream) / self.characters_per_update))

    def block(self, first_update: int, updates: int, capacity: int) -> Block:
        """Returns the block of `updates` updates from `first_update` on, every prediction scored."""
        block = Block.empty(capacity, self.lanes, self.unroll_length, updates)
        steps = updates * self.unroll_length
        for lane in range(self.lanes):
            begin = lane * len(self.stream) // self.lanes if self.offsets is None else int(self.offsets[lane])
            position = begin + first_update * self.unroll_length
            block.fill_lane(
                lane,
                self.stream.circular(position - 1, steps + 1),
                self.stream.circular_starts(position, steps),
            )
        return block
