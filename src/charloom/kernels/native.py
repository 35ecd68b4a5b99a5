"""The native kernels: whole unrolls, and heads after them, in C++, by the rules of the reference, the definition.

`CHARLOOM_KERNELS` chooses: `native`, `reference`, or `auto` (the default), which is native where that can be had.
See docs/design/kernels.md.
"""

import ctypes
import logging
import math
import os
from collections.abc import Mapping
from functools import cache, partial
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32

from charloom.errors import CharloomError
from charloom.kernels.build import KernelsUnavailableError, library_path
from charloom.kernels.inputs import Features, LayerInputs, Rows
from charloom.machine import available_cores
from charloom.settings import CellActivation, GateActivation

logger = logging.getLogger("charloom")

_HANDLERS = tuple(f"{part}_{way}" for part in ("lstm", "gru", "elman", "dense") for way in ("forward", "backward"))
_AS_ASKED = "CHARLOOM_KERNELS says so"
_CHOICES = ("native", "reference", "auto")
# Those under which a unit needs no other.
_NATIVE_CELLS: tuple[CellActivation, ...] = ("tanh", "relu")
# XLA unrolls a short loop over a small layer and fuses it into the rest of an update, which is faster.
_SMALL_UNITS = 64
_SHORT_STEPS = 8

_State = Float[Array, "lanes hidden"]
_Outputs = Float[Array, "time lanes hidden"]
_Resets = Bool[Array, "time lanes"]


class Kernels(NamedTuple):
    """Which kernels run.

    Attributes:
        name: `native` or `reference`.
        why: why it is these, in a few words.
        suffix: of the names by which XLA knows the native ones.
    """

    name: str
    why: str
    suffix: str = ""


def kernels_in_use() -> Kernels:
    """Returns the kernels that usual cells run on in this process; compiles the native ones where that is due.

    Raises:
        CharloomError: `CHARLOOM_KERNELS` asks for what is not there.
    """
    chosen = _chosen(_choice())
    if chosen.name == "native" and not _computes_on_cpu():
        return Kernels("reference", f"computed on a {jax.default_backend()}; text is written natively, on the CPU")
    return chosen


def runs_natively(
    inputs: LayerInputs,
    recurrent_kernel: Float[Array, "hidden gates"],
    cell_activation: CellActivation,
) -> bool:
    """Returns whether the native kernels run a layer. That depends on nothing that a lane's company changes."""
    return math.prod(inputs.shape) > 0 and takes_natively(recurrent_kernel, cell_activation, inputs.shape[0])


def takes_natively(
    recurrent_kernel: Float[Array, "hidden gates"], cell_activation: CellActivation, steps: int | None = None
) -> bool:
    """Returns whether there are native kernels for such a layer, and they are in use."""
    return (
        recurrent_kernel.dtype == jnp.float32
        and reference_reason(len(recurrent_kernel), cell_activation, steps) is None
        and _chosen(_choice()).name == "native"
    )


def reference_reason(units: int, cell_activation: CellActivation, steps: int | None = None) -> str | None:
    """Returns why a layer runs on the reference even where there are native kernels; None where it does not.

    Args:
        units: of the layer.
        cell_activation: of the layer.
        steps: of an unroll; None where text is written, with weights that stay as they are, and always on the CPU.
    """
    choice = _choice()
    if choice == "reference":
        return _AS_ASKED
    if cell_activation not in _NATIVE_CELLS:
        return f"{cell_activation} cells"
    if steps is not None and not _computes_on_cpu():
        return f"computed on a {jax.default_backend()}"
    if choice == "native" or steps is None:
        return None
    if units < _SMALL_UNITS and steps <= _SHORT_STEPS:
        return "few units and few steps an update"
    # One step has nothing to keep packed weights for.
    return "one step an update" if steps == 1 else None


def loaded_library() -> ctypes.CDLL:
    """Returns the library that `kernels_in_use` found."""
    return _load()[0]


def _computes_on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def _choice() -> str:
    return os.environ.get("CHARLOOM_KERNELS", "auto")


@cache
def _chosen(choice: str) -> Kernels:
    if choice not in _CHOICES:
        raise CharloomError(f"CHARLOOM_KERNELS is one of {', '.join(_CHOICES)}; got {choice!r}.")
    if choice == "reference":
        return Kernels("reference", _AS_ASKED)
    try:
        _, suffix = _load()
    except KernelsUnavailableError as problem:
        if choice == "native":
            raise CharloomError(f"CHARLOOM_KERNELS says native, and there are none: {problem}.") from None
        what = "the slower reference runs" if _computes_on_cpu() else "text is written slowly"
        logger.warning("without native kernels, %s: %s", what, problem)
        return Kernels("reference", str(problem))
    return Kernels("native", "compiled for this processor", suffix)


@cache
def _load() -> tuple[ctypes.CDLL, str]:
    """Returns the library and the suffix of the names that XLA has for its handlers."""
    path = library_path()
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise KernelsUnavailableError(f"cannot load {path}: {error}") from error
    # Programs that JAX keeps between processes know handlers by their names: another source has other names.
    suffix = path.stem.removeprefix("kernels-")
    for handler in _HANDLERS:
        # JAX leaves this function, and ShapeDtypeStruct below, without types.
        function = jax.ffi.pycapsule(getattr(library, f"charloom_{handler}"))  # type: ignore[no-untyped-call]
        jax.ffi.register_ffi_target(f"charloom_{handler}_{suffix}", function, platform="cpu")
    library.charloom_use_threads(available_cores())
    return library, suffix


class Activations(NamedTuple):
    """A layer's activations."""

    gate: GateActivation
    cell: CellActivation

    def as_attributes(self) -> dict[str, np.int32]:
        """Returns them as the handlers are told of them."""
        return {"hard_gates": np.int32(self.gate == "hard_sigmoid"), "relu": np.int32(self.cell == "relu")}


# The largest vector that the kernels know, in floats: what they keep for themselves has room for whole ones.
_WIDEST = 16


def _kept(inputs: LayerInputs, hidden: int, each: int) -> tuple[int, ...]:
    """Returns the shape of what a forward pass keeps: `each` numbers a unit, in the order that the kernels like."""
    return (math.prod(inputs.shape) * each * -(-hidden // _WIDEST) * _WIDEST,)


def _call(
    handler: str,
    results: tuple[tuple[int, ...], ...],
    *arguments: Array,
    activations: Activations | None = None,
    in_place: Mapping[int, int] = MappingProxyType({}),
) -> tuple[Array, ...]:
    """Returns the float32 arrays of the shapes `results` that a handler makes.

    `in_place` maps arguments to the results that take their memory.
    """
    shapes = tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in results)  # type: ignore[no-untyped-call]
    target = f"charloom_{handler}_{kernels_in_use().suffix}"
    call = jax.ffi.ffi_call(target, shapes, vmap_method="sequential", input_output_aliases=dict(in_place))
    made = call(*arguments, **({} if activations is None else activations.as_attributes()))
    return tuple(made)


class _Layer(NamedTuple):
    """What both directions are told of a layer, in the order of the handlers' first arguments.

    The kernels know one kind of input: rows of a table, and beside them features and their kernel.
    """

    rows: Int32[Array, "time lanes"]
    features: Float[Array, "time lanes features"]
    kernel: Float[Array, "features gates"]
    recurrent_kernel: Float[Array, "hidden gates"]
    start: _State
    resets: _Resets

    @classmethod
    def of(cls, inputs: LayerInputs, *rest: Array) -> "_Layer":
        """Returns the layer, in which what there is none of is empty."""
        if isinstance(inputs, Rows):
            return cls(inputs.ids, jnp.zeros((*inputs.shape, 0)), jnp.zeros((0, inputs.table.shape[1])), *rest)
        return cls(jnp.zeros(inputs.shape, jnp.int32), inputs.values, inputs.kernel, *rest)

    def gradient_shapes(self, inputs: LayerInputs) -> tuple[tuple[int, ...], ...]:
        """Returns the shapes of the gradients of table, features, kernel and recurrent kernel."""
        return _table(inputs).shape, self.features.shape, self.kernel.shape, self.recurrent_kernel.shape


def _table(inputs: LayerInputs) -> Float[Array, "rows gates"]:
    return inputs.table if isinstance(inputs, Rows) else inputs.bias[None]


def _gradient(inputs: LayerInputs, table: Array, features: Array, kernel: Array) -> LayerInputs:
    """Returns the gradient of `inputs`, in their form; ids have none."""
    return Rows._make((None, table)) if isinstance(inputs, Rows) else Features(features, kernel, table[0])


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def lstm_sequence(
    inputs: LayerInputs,
    recurrent_kernel: Float[Array, "hidden gates"],
    carry: tuple[_State, _State],
    resets: _Resets,
    activations: Activations,
) -> tuple[_Outputs, tuple[_State, _State]]:
    """Returns what `charloom.kernels.lstm_sequence` does; `carry` is (h, c)."""
    return _lstm(inputs, recurrent_kernel, carry, resets, activations, kept=False)[0]


def _lstm(
    inputs: LayerInputs,
    recurrent_kernel: Array,
    carry: tuple[Array, Array],
    resets: Array,
    activations: Activations,
    *,
    kept: bool,
) -> Any:
    hidden = len(recurrent_kernel)
    layer = _Layer.of(inputs, recurrent_kernel, carry[0], resets)
    of_backward = (_kept(inputs, hidden, 4), _kept(inputs, hidden, 1)) if kept else ((0,), (0,))
    shapes = (*inputs.shape, hidden), carry[1].shape, *of_backward
    outputs, last_cell, gates, cells = _call(
        "lstm_forward", shapes, *layer, carry[1], _table(inputs), activations=activations
    )
    return (outputs, (outputs[-1], last_cell)), (inputs, recurrent_kernel, carry, resets, outputs, cells, gates)


def _lstm_forward(*arguments: Any) -> Any:
    return _lstm(*arguments, kept=True)


def _lstm_backward(activations: Activations, residuals: Any, cotangents: Any) -> Any:
    inputs, recurrent_kernel, carry, resets, outputs, cells, gates = residuals
    d_outputs, d_last = cotangents
    layer = _Layer.of(inputs, recurrent_kernel, carry[0], resets)
    arguments = *layer, carry[1], outputs, cells, gates, d_outputs, *d_last
    shapes = gates.shape, *layer.gradient_shapes(inputs), carry[0].shape, carry[1].shape
    # The gates' gradients stand where the gates stood: nobody else reads either.
    in_place = {len(layer) + 3: 0}
    _, *d_inputs, d_kernel, d_start, d_start_cell = _call(
        "lstm_backward", shapes, *arguments, activations=activations, in_place=in_place
    )
    return _gradient(inputs, *d_inputs), d_kernel, (d_start, d_start_cell), None


lstm_sequence.defvjp(_lstm_forward, _lstm_backward)


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def gru_sequence(
    inputs: LayerInputs,
    recurrent_kernel: Float[Array, "hidden gates"],
    recurrent_bias: Float[Array, " gates"],
    carry: _State,
    resets: _Resets,
    activations: Activations,
) -> tuple[_Outputs, _State]:
    """Returns what `charloom.kernels.gru_sequence` does."""
    return _gru(inputs, recurrent_kernel, recurrent_bias, carry, resets, activations, kept=False)[0]


def _gru(
    inputs: LayerInputs,
    recurrent_kernel: Array,
    recurrent_bias: Array,
    carry: Array,
    resets: Array,
    activations: Activations,
    *,
    kept: bool,
) -> Any:
    hidden = len(recurrent_kernel)
    layer = _Layer.of(inputs, recurrent_kernel, carry, resets)
    shapes = (*inputs.shape, hidden), _kept(inputs, hidden, 4) if kept else (0,)
    outputs, gates = _call("gru_forward", shapes, *layer, recurrent_bias, _table(inputs), activations=activations)
    return (outputs, outputs[-1]), (inputs, recurrent_kernel, carry, resets, outputs, gates)


def _gru_forward(*arguments: Any) -> Any:
    return _gru(*arguments, kept=True)


def _gru_backward(activations: Activations, residuals: Any, cotangents: Any) -> Any:
    inputs, recurrent_kernel, carry, resets, outputs, gates = residuals
    layer = _Layer.of(inputs, recurrent_kernel, carry, resets)
    arguments = *layer, outputs, gates, *cotangents
    shapes = gates.shape, *layer.gradient_shapes(inputs), (recurrent_kernel.shape[1],), carry.shape
    in_place = {len(layer) + 1: 0}
    _, *d_inputs, d_kernel, d_bias, d_start = _call(
        "gru_backward", shapes, *arguments, activations=activations, in_place=in_place
    )
    return _gradient(inputs, *d_inputs), d_kernel, d_bias, d_start, None


gru_sequence.defvjp(_gru_forward, _gru_backward)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def elman_sequence(
    inputs: LayerInputs,
    recurrent_kernel: Float[Array, "hidden hidden"],
    carry: _State,
    resets: _Resets,
    activations: Activations,
) -> tuple[_Outputs, _State]:
    """Returns what `charloom.kernels.elman_sequence` does."""
    layer = _Layer.of(inputs, recurrent_kernel, carry, resets)
    shape = *inputs.shape, len(recurrent_kernel)
    (outputs,) = _call("elman_forward", (shape,), *layer, _table(inputs), activations=activations)
    return outputs, outputs[-1]


def _elman_forward(
    inputs: LayerInputs, recurrent_kernel: Array, carry: Array, resets: Array, activations: Activations
) -> Any:
    outputs, last = elman_sequence(inputs, recurrent_kernel, carry, resets, activations)
    return (outputs, last), (inputs, recurrent_kernel, carry, resets, outputs)


def _elman_backward(activations: Activations, residuals: Any, cotangents: tuple[Array, Array]) -> Any:
    inputs, recurrent_kernel, carry, resets, outputs = residuals
    layer = _Layer.of(inputs, recurrent_kernel, carry, resets)
    shapes = *layer.gradient_shapes(inputs), carry.shape
    *d_inputs, d_kernel, d_start = _call(
        "elman_backward", shapes, *layer, outputs, *cotangents, activations=activations
    )
    return _gradient(inputs, *d_inputs), d_kernel, d_start, None


elman_sequence.defvjp(_elman_forward, _elman_backward)


def runs_dense_natively(inputs: Float[Array, "*batch input"], kernel: Float[Array, "input output"]) -> bool:
    """Returns whether the native kernels run a head: one of whole vectors, after more than one step.

    Like `runs_natively` it depends on nothing that a lane's company changes.
    """
    return (
        inputs.ndim == 3
        and inputs.shape[0] > 1
        and inputs.size > 0
        and inputs.dtype == kernel.dtype == jnp.float32
        and len(kernel) >= _SMALL_UNITS
        and len(kernel) % _WIDEST == 0
        and kernels_in_use().name == "native"
    )


@jax.custom_vjp
def dense(
    inputs: Float[Array, "rows input"], kernel: Float[Array, "input output"], bias: Float[Array, " output"]
) -> Float[Array, "rows output"]:
    """Returns what `charloom.kernels.dense` does."""
    return _call("dense_forward", ((len(inputs), len(bias)),), inputs, kernel, bias)[0]


def _dense_forward(inputs: Array, kernel: Array, bias: Array) -> Any:
    return dense(inputs, kernel, bias), (inputs, kernel, bias)


def _dense_backward(residuals: tuple[Array, Array, Array], cotangent: Array) -> Any:
    inputs, kernel, bias = residuals
    return _call("dense_backward", (inputs.shape, kernel.shape, bias.shape), inputs, kernel, cotangent)


dense.defvjp(_dense_forward, _dense_backward)
