"""Models: recurrent networks over token ids, as plain pytrees."""

from charloom.models.cells import CELLS, Cell, LSTMCell
from charloom.models.network import Carry, Head, Network, draw_dropout_masks
from charloom.models.objective import cross_entropy, masked_sum

__all__ = [
    "CELLS",
    "Carry",
    "Cell",
    "Head",
    "LSTMCell",
    "Network",
    "cross_entropy",
    "draw_dropout_masks",
    "masked_sum",
]
