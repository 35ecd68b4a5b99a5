"""Passes over a text that is only scored: each character exactly once, the first one too."""

from collections.abc import Iterator

import numpy as np

from charloom.data.block import Block
from charloom.data.packing import Packing
from charloom.data.stream import TokenStream

_MOST_LANES = 64
_PRIMING = 512
_UNROLL_LENGTH = 64
_CAPACITY = 8


def evaluation_pass(stream: TokenStream) -> Iterator[Block]:
    """Yields blocks of up to 64 lanes, each primed with the 512 characters before it, unscored.

    Quick, and all but equal to `ordered_pass`.
    """
    return _pass(stream, lanes=max(1, min(_MOST_LANES, len(stream) // _PRIMING)))


def ordered_pass(stream: TokenStream) -> Iterator[Block]:
    """Yields blocks of one lane that reads the text from its beginning to its end."""
    return _pass(stream, lanes=1)


def record_pass(stream: TokenStream) -> Iterator[Block]:
    """Yields blocks of up to 64 lanes, each of which reads whole records, every one from its beginning.

    As a record's state is its own, each character costs what it does in `ordered_pass`, many times as soon.
    """
    records = stream.documents
    packing = Packing.of_lengths([len(record) for record in records], min(_MOST_LANES, len(records)))
    yield from packing.blocks(records, _CAPACITY, _UNROLL_LENGTH)


def _pass(stream: TokenStream, lanes: int) -> Iterator[Block]:
    bounds = [lane * len(stream) // lanes for lane in range(lanes + 1)]
    begins = [max(0, bound - _PRIMING) for bound in bounds[:-1]]
    steps = max(end - begin for begin, end in zip(begins, bounds[1:], strict=True))
    # One lane wants long blocks: a call's cost is not spread over lanes.
    block_steps = _UNROLL_LENGTH * _CAPACITY * (1 if lanes > 1 else 8)
    capacity = block_steps // _UNROLL_LENGTH
    for done in range(0, steps, block_steps):
        updates = min(capacity, -(-(steps - done) // _UNROLL_LENGTH))
        block = Block.empty(capacity, lanes, _UNROLL_LENGTH, updates)
        for lane in range(lanes):
            first, count = begins[lane] + done, updates * _UNROLL_LENGTH
            positions = np.arange(first, first + count)
            block.fill_lane(
                lane,
                # A lane that is at its end reads on, unscored, until the longest is.
                stream.circular(first - 1, count + 1),
                stream.circular_starts(first, count),
                (positions >= bounds[lane]) & (positions < bounds[lane + 1]),
            )
        yield block
