"""cuDNN's LSTM over a whole unroll, where JAX computes on a GPU; as JAX binds it, in `jax.experimental.rnn`.

It has sigmoid gates and tanh cells, and takes no resets: `charloom.kernels.lstm` gives it the unrolls without any.
"""

import jax
import jax.numpy as jnp
from jax.experimental import rnn
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Float

from charloom.kernels.inputs import LayerInputs, Rows
from charloom.kernels.native import reference_is_asked_for
from charloom.settings import CellActivation, GateActivation

_State = Float[Array, "lanes hidden"]


def runs_on_cudnn(
    inputs: LayerInputs,
    recurrent_kernel: Float[Array, "hidden gates"],
    gate_activation: GateActivation,
    cell_activation: CellActivation,
) -> bool:
    """Returns whether a layer can be cuDNN's in this process."""
    return (
        jax.default_backend() == "gpu"
        and getattr(rnn, "gpu_rnn", None) is not None
        and not reference_is_asked_for()
        and (gate_activation, cell_activation) == ("sigmoid", "tanh")
        and recurrent_kernel.dtype == jnp.float32
        and 0 not in inputs.shape
    )


def lstm_sequence(
    inputs: LayerInputs, recurrent_kernel: Float[Array, "hidden gates"], carry: tuple[_State, _State]
) -> tuple[Float[Array, "time lanes hidden"], tuple[_State, _State]]:
    """Returns what `charloom.kernels.lstm_sequence` does where nothing is reset; `carry` is (h, c)."""
    if isinstance(inputs, Rows):
        # A choice of a row is a product with a one, and its gradient then is cuDNN's.
        features, kernel = jax.nn.one_hot(inputs.ids, len(inputs.table), dtype=jnp.float32), inputs.table
        bias = jnp.zeros(kernel.shape[1])
    else:
        features, kernel, bias = inputs
    steps, lanes, size = features.shape
    # A layer has two biases there. Gates stand in our order; kernels have theirs first.
    weights = jnp.concatenate([kernel.T.ravel(), recurrent_kernel.T.ravel(), bias, jnp.zeros_like(bias)])
    outputs, *last = rnn.lstm(
        _as_it_is(features.swapaxes(0, 1)),
        carry[0][None],
        carry[1][None],
        weights,
        jnp.full(lanes, steps, jnp.int32),
        size,
        len(recurrent_kernel),
        1,  # layer
        0.0,  # dropout
        False,  # bidirectional
    )
    return _as_it_is(outputs).swapaxes(0, 1), (last[0][0], last[1][0])


def _as_it_is(array: Float[Array, "lanes time size"]) -> Float[Array, "lanes time size"]:
    # XLA would leave the numbers where they are and call another order of theirs the transposed array's, which JAX's
    # binding does not tell cuDNN.
    return with_layout_constraint(array, Layout((0, 1, 2)))  # type: ignore[no-untyped-call]
