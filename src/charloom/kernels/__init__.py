"""Sequence kernels: one call runs one layer over a whole unroll. Importing them sets JAX up."""

from charloom.machine import set_up_jax

set_up_jax()

from charloom.kernels.lstm import LSTMCarry, lstm_sequence, lstm_step  # noqa: E402  # JAX comes set up

__all__ = ["LSTMCarry", "lstm_sequence", "lstm_step"]
