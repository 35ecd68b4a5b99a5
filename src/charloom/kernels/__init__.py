"""Kernels: one call computes one layer, or the head, over a whole sequence. Importing this package imports JAX."""

from charloom.machine import set_up_jax

set_up_jax()

from charloom.kernels.choice import (
    Kernels,
    bfloat16_instructions,
    has_native_kernel,
    kernels_in_use,
    reference_reason,
)
from charloom.kernels.compiled import compiled, own_settings, require_own_process
from charloom.kernels.dense import dense
from charloom.kernels.elman import elman_sequence, elman_step
from charloom.kernels.generator import Begun, Generator, GeneratorState, LayerWeights, Refill
from charloom.kernels.gru import gru_sequence, gru_step
from charloom.kernels.inputs import Features, LayerInputs, Rows
from charloom.kernels.lstm import LSTMCarry, lstm_sequence, lstm_step
from charloom.kernels.mingru import mingru_sequence, mingru_step
from charloom.kernels.native import Activations
from charloom.kernels.structures import SAMPLER_RECORD

__all__ = [
    "SAMPLER_RECORD",
    "Activations",
    "Begun",
    "Features",
    "Generator",
    "GeneratorState",
    "Kernels",
    "LSTMCarry",
    "LayerInputs",
    "LayerWeights",
    "Refill",
    "Rows",
    "bfloat16_instructions",
    "compiled",
    "dense",
    "elman_sequence",
    "elman_step",
    "gru_sequence",
    "gru_step",
    "has_native_kernel",
    "kernels_in_use",
    "lstm_sequence",
    "lstm_step",
    "mingru_sequence",
    "mingru_step",
    "own_settings",
    "reference_reason",
    "require_own_process",
]
