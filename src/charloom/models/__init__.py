"""Models: recurrent networks over token ids, as pytrees."""

from charloom.models.cells import CELLS, Cell, CellWithRecurrentKernel, ElmanCell, GRUCell, LSTMCell, MinGRUCell
from charloom.models.initializers import glorot_uniform, orthogonal, uniform, zeros
from charloom.models.network import Dense, LogitsHead, Network, ProbabilitiesHead
from charloom.models.objective import Totals, cross_entropy, sequence_totals
from charloom.models.sequence_model import Carry, DropoutMasks, SequenceModel, draw_dropout_masks
from charloom.models.tensors import named_tensors, restore_tensors

__all__ = [
    "CELLS",
    "Carry",
    "Cell",
    "CellWithRecurrentKernel",
    "Dense",
    "DropoutMasks",
    "ElmanCell",
    "GRUCell",
    "LSTMCell",
    "LogitsHead",
    "MinGRUCell",
    "Network",
    "ProbabilitiesHead",
    "SequenceModel",
    "Totals",
    "cross_entropy",
    "draw_dropout_masks",
    "glorot_uniform",
    "named_tensors",
    "orthogonal",
    "restore_tensors",
    "sequence_totals",
    "uniform",
    "zeros",
]
