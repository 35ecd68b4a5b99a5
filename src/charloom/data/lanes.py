"""Lanes: one long text read at many places at once, with the state carried from block to block.

Lane l begins at the l-th of equal parts of the text and reads on, without end: past the text's last
character comes its first. So every lane's state is always that of a text read from some beginning,
and is reset exactly where a document begins, the text's own beginning among them.
"""

from dataclasses import dataclass

from charloom.data.block import Block
from charloom.data.stream import TokenStream
from charloom.errors import TooShortError


@dataclass(frozen=True)
class Lanes:
    """A producer of training blocks. Its cursor is the number of updates made, a Python int.

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
            position = lane * len(self.stream) // self.lanes + first_update * self.unroll_length
            block.fill_lane(
                lane,
                self.stream.circular(position - 1, steps + 1),
                self.stream.circular_starts(position, steps),
            )
        return block
