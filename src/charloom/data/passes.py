"""Passes that score a text: every character exactly once, including the first one."""

from collections.abc import Iterator

import numpy as np

from charloom.data.block import Block
from charloom.data.packing import Packing
from charloom.data.stream import TokenStream

_MAX_ROWS = 64
_WARM_UP = 512
_SEQUENCE_LENGTH = 64
_CAPACITY = 8


def evaluation_pass(stream: TokenStream) -> Iterator[Block]:
    """Yields blocks of up to 64 rows. Each row first reads the 512 characters before its part without scoring them.

    This is much faster than `ordered_pass`, with nearly the same score.
    """
    return _pass(stream, batch_size=max(1, min(_MAX_ROWS, len(stream) // _WARM_UP)))


def ordered_pass(stream: TokenStream) -> Iterator[Block]:
    """Yields blocks of one row that reads the text from beginning to end."""
    return _pass(stream, batch_size=1)


def record_pass(stream: TokenStream) -> Iterator[Block]:
    """Yields blocks of up to 64 rows of complete records, each read from its beginning.

    Every record starts from a new state, so each character has the same score as in `ordered_pass`, many times faster.
    """
    records = stream.documents
    packing = Packing.from_lengths([len(record) for record in records], min(_MAX_ROWS, len(records)))
    yield from packing.blocks(records, _CAPACITY, _SEQUENCE_LENGTH)


def _pass(stream: TokenStream, batch_size: int) -> Iterator[Block]:
    bounds = [row * len(stream) // batch_size for row in range(batch_size + 1)]
    begins = [max(0, bound - _WARM_UP) for bound in bounds[:-1]]
    time_steps = max(end - begin for begin, end in zip(begins, bounds[1:], strict=True))
    # With one row, blocks are longer, because the cost of a call is not shared by several rows.
    block_steps = _SEQUENCE_LENGTH * _CAPACITY * (1 if batch_size > 1 else 8)
    capacity = block_steps // _SEQUENCE_LENGTH
    for done in range(0, time_steps, block_steps):
        steps = min(capacity, -(-(time_steps - done) // _SEQUENCE_LENGTH))
        block = Block.empty(capacity, batch_size, _SEQUENCE_LENGTH, steps)
        for row in range(batch_size):
            first, count = begins[row] + done, steps * _SEQUENCE_LENGTH
            positions = np.arange(first, first + count)
            block.fill_row(
                row,
                # A row that has ended reads on without scoring until the longest row ends.
                stream.circular(first - 1, count + 1),
                stream.circular_starts(first, count),
                (positions >= bounds[row]) & (positions < bounds[row + 1]),
            )
        yield block
