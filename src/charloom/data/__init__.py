"""The data path: token ids on the host, and blocks of them for compiled calls."""

from charloom.data.block import Block, BlockProducer
from charloom.data.contiguous_batches import ContiguousBatches
from charloom.data.packing import Packing
from charloom.data.passes import evaluation_pass, ordered_pass, record_pass
from charloom.data.stream import TokenStream
from charloom.data.windows import Windows, contiguous_windows, left_padded, sliding_windows

__all__ = [
    "Block",
    "BlockProducer",
    "ContiguousBatches",
    "Packing",
    "TokenStream",
    "Windows",
    "contiguous_windows",
    "evaluation_pass",
    "left_padded",
    "ordered_pass",
    "record_pass",
    "sliding_windows",
]
