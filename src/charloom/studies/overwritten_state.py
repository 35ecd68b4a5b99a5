"""A hypothesis about the published losses: Keras back then computed gradients from an overwritten state.

A stateful layer kept its state in a variable, and each batch assigned a new value to it. If that happened before
back-propagation read the initial state of the batch, it read the final state instead. `overwrite` emulates this
mistake. Outputs are correct, but the gradient at the first step of a sequence uses the state after its last step.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
from jaxtyping import Array, Bool, Float

from charloom.kernels import LayerInputs
from charloom.kernels.elman import elman_backward, elman_forward
from charloom.kernels.lstm import LSTMCarry, lstm_backward, lstm_forward
from charloom.models import Cell, ElmanCell, LSTMCell, Network


def overwrite(network: Network) -> Network:
    """Returns `network`, which has Elman or LSTM cells, with the mistake in their gradient."""
    kinds: dict[type[Cell], type[Cell]] = {ElmanCell: _OverwrittenElmanCell, LSTMCell: _OverwrittenLSTMCell}
    return dataclasses.replace(network, cells=tuple(kinds[type(cell)](**vars(cell)) for cell in network.cells))


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _elman(*arguments: Any) -> Any:
    return elman_forward(*arguments)[0]


def _elman_forward(*arguments: Any) -> Any:
    (outputs, last), residuals = elman_forward(*arguments)
    return (outputs, last), residuals._replace(start=last)


_elman.defvjp(_elman_forward, elman_backward)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def _lstm(*arguments: Any) -> Any:
    return lstm_forward(*arguments)[0]


def _lstm_forward(*arguments: Any) -> Any:
    (outputs, last), residuals = lstm_forward(*arguments)
    return (outputs, last), residuals._replace(start=last)


_lstm.defvjp(_lstm_forward, lstm_backward)


class _OverwrittenElmanCell(ElmanCell):
    def sequence(
        self,
        inputs: LayerInputs,
        carry: Float[Array, "batch hidden"],
        resets: Bool[Array, "time batch"],
    ) -> tuple[Float[Array, "time batch hidden"], Float[Array, "batch hidden"]]:
        return _elman(
            inputs.projected(self.precision), self.recurrent_kernel, carry, resets, self.cell_activation, self.precision
        )


class _OverwrittenLSTMCell(LSTMCell):
    def sequence(
        self,
        inputs: LayerInputs,
        carry: LSTMCarry,
        resets: Bool[Array, "time batch"],
    ) -> tuple[Float[Array, "time batch hidden"], LSTMCarry]:
        return _lstm(
            inputs.projected(self.precision),
            self.recurrent_kernel,
            carry,
            resets,
            self.gate_activation,
            self.cell_activation,
            self.precision,
        )
