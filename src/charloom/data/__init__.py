"""The data path: token ids on the host, and the blocks that compiled calls consume."""

from charloom.data.block import Block
from charloom.data.lanes import Lanes
from charloom.data.passes import evaluation_pass, ordered_pass
from charloom.data.stream import TokenStream

__all__ = ["Block", "Lanes", "TokenStream", "evaluation_pass", "ordered_pass"]
