"""The native kernels as JAX functions: layers over whole sequences, and heads. The reference defines their results."""

import math
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32

from charloom.kernels.choice import MAX_VECTOR_WIDTH, kernels_in_use
from charloom.kernels.inputs import Features, LayerInputs, Rows
from charloom.kernels.operations import require_array
from charloom.settings import CellActivation, GateActivation, Precision

_State = Float[Array, "batch hidden"]
_Outputs = Float[Array, "time batch hidden"]
_Resets = Bool[Array, "time batch"]


class Activations(NamedTuple):
    """The activations of a layer."""

    gate: GateActivation
    cell: CellActivation

    def as_attributes(self) -> dict[str, np.int32]:
        """Returns the activations as attributes of a handler's call."""
        return {"hard_gates": np.int32(self.gate == "hard_sigmoid"), "relu": np.int32(self.cell == "relu")}


def _kept(inputs: LayerInputs, hidden: int, each: int) -> tuple[int, ...]:
    """Returns the shape of an array of residuals: `each` numbers per unit, in the kernels' own layout."""
    return (math.prod(inputs.shape) * each * -(-hidden // MAX_VECTOR_WIDTH) * MAX_VECTOR_WIDTH,)


def _call(
    handler: str,
    results: tuple[tuple[int, ...], ...],
    *arguments: Array,
    precision: Precision,
    activations: Activations | None = None,
    in_place: Mapping[int, int] = MappingProxyType({}),
) -> tuple[Array, ...]:
    """Returns a handler's results, float32 arrays of the shapes `results`.

    `in_place` maps the indices of arguments to those of results that reuse their memory.
    """
    # This class of JAX is untyped.
    shapes = tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in results)  # type: ignore[no-untyped-call]
    target = f"charloom_{handler}_{kernels_in_use().suffix}"
    call = jax.ffi.ffi_call(target, shapes, vmap_method="sequential", input_output_aliases=dict(in_place))
    attributes = {} if activations is None else activations.as_attributes()
    return tuple(call(*arguments, bfloat16=np.int32(precision == "bfloat16"), **attributes))


class _Layer(NamedTuple):
    """The arguments that both passes of a layer begin with, in the order of the handlers.

    The kernels have only one kind of input: rows of a table, plus features and their kernel.
    """

    rows: Int32[Array, "time batch"]
    features: Float[Array, "time batch features"]
    kernel: Float[Array, "features gates"]
    recurrent_kernel: Float[Array, "hidden gates"]
    start: _State
    resets: _Resets

    @classmethod
    def of(cls, inputs: LayerInputs, *rest: Array) -> "_Layer":
        """Returns the arguments for `inputs`, with empty arrays for the kind of input that is not used."""
        if isinstance(inputs, Rows):
            nothing = (jnp.zeros(shape, jnp.float32) for shape in ((*inputs.shape, 0), (0, inputs.table.shape[1])))
            layer = cls(inputs.ids, *nothing, *rest)
        else:
            layer = cls(jnp.zeros(inputs.shape, jnp.int32), inputs.values, inputs.kernel, *rest)
        layer._require_fitting(_table(inputs))
        return layer

    def _require_fitting(self, table: Float[Array, "rows gates"]) -> None:
        """Checks that the arrays fit together. This happens while JAX traces, so that calls take no extra time.

        Raises:
            ValueError: a shape or a type is wrong.
        """
        steps, (hidden, gates), features = self.resets.shape, self.recurrent_kernel.shape, len(self.kernel)
        require_array("rows", self.rows, steps, jnp.int32)
        require_array("features", self.features, (*steps, features), jnp.float32)
        require_array("kernel", self.kernel, (features, gates), jnp.float32)
        require_array("recurrent kernel", self.recurrent_kernel, (hidden, gates), jnp.float32)
        require_array("state", self.start, (steps[1], hidden), jnp.float32)
        require_array("resets", self.resets, steps, jnp.bool_)
        require_array("table", table, (len(table), gates), jnp.float32)

    def gradient_shapes(self, inputs: LayerInputs) -> tuple[tuple[int, ...], ...]:
        """Returns the shapes of the gradients of table, features, kernel and recurrent kernel."""
        return _table(inputs).shape, self.features.shape, self.kernel.shape, self.recurrent_kernel.shape


def _table(inputs: LayerInputs) -> Float[Array, "rows gates"]:
    return inputs.table if isinstance(inputs, Rows) else inputs.bias[None]


def _gradient(inputs: LayerInputs, table: Array, features: Array, kernel: Array) -> LayerInputs:
    """Returns the gradient of `inputs`, with the same type. Ids have no gradient."""
    return Rows._make((None, table)) if isinstance(inputs, Rows) else Features(features, kernel, table[0])


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def lstm_sequence(
    inputs: LayerInputs,
    recurrent_kernel: Float[Array, "hidden gates"],
    carry: tuple[_State, _State],
    resets: _Resets,
    activations: Activations,
    precision: Precision,
) -> tuple[_Outputs, tuple[_State, _State]]:
    """Returns the same as `charloom.kernels.lstm_sequence`; `carry` is (h, c)."""
    return _lstm(inputs, recurrent_kernel, carry, resets, activations, precision, kept=False)[0]


def _lstm(
    inputs: LayerInputs,
    recurrent_kernel: Array,
    carry: tuple[Array, Array],
    resets: Array,
    activations: Activations,
    precision: Precision,
    *,
    kept: bool,
) -> Any:
    hidden = len(recurrent_kernel)
    layer = _Layer.of(inputs, recurrent_kernel, carry[0], resets)
    of_backward = (_kept(inputs, hidden, 4), _kept(inputs, hidden, 1)) if kept else ((0,), (0,))
    shapes = (*inputs.shape, hidden), carry[1].shape, *of_backward
    outputs, last_cell, gates, cells = _call(
        "lstm_forward", shapes, *layer, carry[1], _table(inputs), activations=activations, precision=precision
    )
    return (outputs, (outputs[-1], last_cell)), (inputs, recurrent_kernel, carry, resets, outputs, cells, gates)


def _lstm_forward(*arguments: Any) -> Any:
    return _lstm(*arguments, kept=True)


def _lstm_backward(activations: Activations, precision: Precision, residuals: Any, cotangents: Any) -> Any:
    inputs, recurrent_kernel, carry, resets, outputs, cells, gates = residuals
    d_outputs, d_last = cotangents
    layer = _Layer.of(inputs, recurrent_kernel, carry[0], resets)
    arguments = *layer, carry[1], outputs, cells, gates, d_outputs, *d_last
    shapes = gates.shape, *layer.gradient_shapes(inputs), carry[0].shape, carry[1].shape
    # The gates' gradients overwrite the gates, because nothing else reads either.
    in_place = {len(layer) + 3: 0}
    _, *d_inputs, d_kernel, d_start, d_start_cell = _call(
        "lstm_backward", shapes, *arguments, activations=activations, precision=precision, in_place=in_place
    )
    return _gradient(inputs, *d_inputs), d_kernel, (d_start, d_start_cell), None


lstm_sequence.defvjp(_lstm_forward, _lstm_backward)


@partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def gru_sequence(
    inputs: LayerInputs,
    recurrent_kernel: Float[Array, "hidden gates"],
    recurrent_bias: Float[Array, " gates"],
    carry: _State,
    resets: _Resets,
    activations: Activations,
    precision: Precision,
) -> tuple[_Outputs, _State]:
    """Returns the same as `charloom.kernels.gru_sequence`."""
    return _gru(inputs, recurrent_kernel, recurrent_bias, carry, resets, activations, precision, kept=False)[0]


def _gru(
    inputs: LayerInputs,
    recurrent_kernel: Array,
    recurrent_bias: Array,
    carry: Array,
    resets: Array,
    activations: Activations,
    precision: Precision,
    *,
    kept: bool,
) -> Any:
    hidden = len(recurrent_kernel)
    layer = _Layer.of(inputs, recurrent_kernel, carry, resets)
    shapes = (*inputs.shape, hidden), _kept(inputs, hidden, 4) if kept else (0,)
    outputs, gates = _call(
        "gru_forward", shapes, *layer, recurrent_bias, _table(inputs), activations=activations, precision=precision
    )
    return (outputs, outputs[-1]), (inputs, recurrent_kernel, carry, resets, outputs, gates)


def _gru_forward(*arguments: Any) -> Any:
    return _gru(*arguments, kept=True)


def _gru_backward(activations: Activations, precision: Precision, residuals: Any, cotangents: Any) -> Any:
    inputs, recurrent_kernel, carry, resets, outputs, gates = residuals
    layer = _Layer.of(inputs, recurrent_kernel, carry, resets)
    arguments = *layer, outputs, gates, *cotangents
    shapes = gates.shape, *layer.gradient_shapes(inputs), (recurrent_kernel.shape[1],), carry.shape
    in_place = {len(layer) + 1: 0}
    _, *d_inputs, d_kernel, d_bias, d_start = _call(
        "gru_backward", shapes, *arguments, activations=activations, precision=precision, in_place=in_place
    )
    return _gradient(inputs, *d_inputs), d_kernel, d_bias, d_start, None


gru_sequence.defvjp(_gru_forward, _gru_backward)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def elman_sequence(
    inputs: LayerInputs,
    recurrent_kernel: Float[Array, "hidden hidden"],
    carry: _State,
    resets: _Resets,
    activations: Activations,
    precision: Precision,
) -> tuple[_Outputs, _State]:
    """Returns the same as `charloom.kernels.elman_sequence`."""
    layer = _Layer.of(inputs, recurrent_kernel, carry, resets)
    shape = *inputs.shape, len(recurrent_kernel)
    (outputs,) = _call("elman_forward", (shape,), *layer, _table(inputs), activations=activations, precision=precision)
    return outputs, outputs[-1]


def _elman_forward(
    inputs: LayerInputs,
    recurrent_kernel: Array,
    carry: Array,
    resets: Array,
    activations: Activations,
    precision: Precision,
) -> Any:
    outputs, last = elman_sequence(inputs, recurrent_kernel, carry, resets, activations, precision)
    return (outputs, last), (inputs, recurrent_kernel, carry, resets, outputs)


def _elman_backward(
    activations: Activations, precision: Precision, residuals: Any, cotangents: tuple[Array, Array]
) -> Any:
    inputs, recurrent_kernel, carry, resets, outputs = residuals
    layer = _Layer.of(inputs, recurrent_kernel, carry, resets)
    shapes = *layer.gradient_shapes(inputs), carry.shape
    *d_inputs, d_kernel, d_start = _call(
        "elman_backward", shapes, *layer, outputs, *cotangents, activations=activations, precision=precision
    )
    return _gradient(inputs, *d_inputs), d_kernel, d_start, None


elman_sequence.defvjp(_elman_forward, _elman_backward)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def dense(
    inputs: Float[Array, "rows input"],
    kernel: Float[Array, "input output"],
    bias: Float[Array, " output"],
    precision: Precision,
) -> Float[Array, "rows output"]:
    """Returns the same as `charloom.kernels.dense`."""
    return _call("dense_forward", ((len(inputs), len(bias)),), inputs, kernel, bias, precision=precision)[0]


def _dense_forward(inputs: Array, kernel: Array, bias: Array, precision: Precision) -> Any:
    return dense(inputs, kernel, bias, precision), (inputs, kernel, bias)


def _dense_backward(precision: Precision, residuals: tuple[Array, Array, Array], cotangent: Array) -> Any:
    inputs, kernel, bias = residuals
    shapes = inputs.shape, kernel.shape, bias.shape
    return _call("dense_backward", shapes, inputs, kernel, cotangent, precision=precision)


dense.defvjp(_dense_forward, _dense_backward)
