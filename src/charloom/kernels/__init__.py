"""Sequence kernels: one call runs one layer over a whole unroll. Importing them sets JAX up."""

from charloom.machine import set_up_jax

set_up_jax()

from charloom.kernels.activations import hard_sigmoid  # noqa: E402  # JAX comes set up
from charloom.kernels.elman import elman_sequence, elman_step  # noqa: E402
from charloom.kernels.gru import gru_sequence, gru_step  # noqa: E402
from charloom.kernels.lstm import LSTMCarry, lstm_sequence, lstm_step  # noqa: E402

__all__ = [
    "LSTMCarry",
    "elman_sequence",
    "elman_step",
    "gru_sequence",
    "gru_step",
    "hard_sigmoid",
    "lstm_sequence",
    "lstm_step",
]
