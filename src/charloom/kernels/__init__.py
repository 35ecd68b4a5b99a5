"""Sequence kernels: one call runs one layer over a whole unroll. Importing them sets JAX up."""

from charloom.machine import set_up_jax

set_up_jax()

from charloom.kernels.elman import elman_sequence, elman_step
from charloom.kernels.gru import gru_sequence, gru_step
from charloom.kernels.lstm import LSTMCarry, lstm_sequence, lstm_step
from charloom.kernels.native import FEWEST_UNITS, RUN_NATIVELY, Kernels, kernels_in_use

__all__ = [
    "FEWEST_UNITS",
    "RUN_NATIVELY",
    "Kernels",
    "LSTMCarry",
    "elman_sequence",
    "elman_step",
    "gru_sequence",
    "gru_step",
    "kernels_in_use",
    "lstm_sequence",
    "lstm_step",
]
