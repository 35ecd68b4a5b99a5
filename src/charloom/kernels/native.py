"""The native kernels: whole unrolls in C++, by the same rules as the reference, which stays the definition.

`CHARLOOM_KERNELS` chooses: `native`, `reference`, or `auto` (the default), which is native where that can be had.
See docs/design/kernels.md.
"""

import ctypes
import logging
import os
from collections.abc import Mapping
from functools import cache, partial
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from charloom.errors import CharloomError
from charloom.kernels.build import KernelsUnavailableError, library_path
from charloom.machine import available_cores
from charloom.settings import CellActivation, GateActivation

logger = logging.getLogger("charloom")

_HANDLERS = tuple(f"{cell}_{direction}" for cell in ("lstm", "gru", "elman") for direction in ("forward", "backward"))
_AS_ASKED = "CHARLOOM_KERNELS says so"
_CHOICES = ("native", "reference", "auto")
# Those under which a unit needs no other.
_NATIVE_CELLS: tuple[CellActivation, ...] = ("tanh", "relu")
# XLA fuses smaller layers into the rest of an update.
_FEWEST_UNITS = 64

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
    return _chosen(_choice())


def runs_natively(
    projected: Float[Array, "time lanes gates"],
    recurrent_kernel: Float[Array, "hidden gates"],
    cell_activation: CellActivation,
) -> bool:
    """Returns whether the native kernels run a layer. That depends on nothing that a lane's company changes."""
    return projected.size > 0 and takes_natively(recurrent_kernel, cell_activation, len(projected))


def takes_natively(
    recurrent_kernel: Float[Array, "hidden gates"], cell_activation: CellActivation, steps: int | None = None
) -> bool:
    """Returns whether there are native kernels for such a layer, and they are in use."""
    return (
        recurrent_kernel.dtype == jnp.float32
        and reference_reason(len(recurrent_kernel), cell_activation, steps) is None
        and kernels_in_use().name == "native"
    )


def reference_reason(units: int, cell_activation: CellActivation, steps: int | None = None) -> str | None:
    """Returns why a layer runs on the reference even where there are native kernels; None where it does not.

    Args:
        units: of the layer.
        cell_activation: of the layer.
        steps: of an unroll; None where the weights stay as they are from call to call.
    """
    choice = _choice()
    if choice == "reference":
        return _AS_ASKED
    if cell_activation not in _NATIVE_CELLS:
        return f"{cell_activation} cells"
    if choice == "auto" and units < _FEWEST_UNITS:
        return f"fewer than {_FEWEST_UNITS} units"
    # One step has nothing to keep packed weights for.
    return "one step an update" if choice == "auto" and steps == 1 else None


def loaded_library() -> ctypes.CDLL:
    """Returns the library that `kernels_in_use` found."""
    return _load()[0]


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
        logger.warning("without native kernels, the slower reference runs: %s", problem)
        return Kernels("reference", str(problem))
    sizes = "" if choice == "native" else f"; layers of fewer than {_FEWEST_UNITS} units take the reference"
    return Kernels("native", f"compiled for this processor{sizes}", suffix)


@cache
def _load() -> tuple[ctypes.CDLL, str]:
    """Returns the library and the suffix of the names that XLA has for its handlers."""
    if jax.default_backend() != "cpu":
        raise KernelsUnavailableError(f"they are for the CPU, and this computes on {jax.default_backend()}")
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


def _call(
    handler: str,
    results: tuple[tuple[int, ...], ...],
    activations: Activations,
    *arguments: Array,
    in_place: Mapping[int, int] = MappingProxyType({}),
) -> tuple[Array, ...]:
    """Returns the float32 arrays of the shapes `results` that a handler makes.

    `in_place` maps arguments to the results that take their memory: each number is read before it is written over,
    and the largest arrays of an update are one. Where an argument is still needed XLA copies it.
    """
    shapes = tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in results)  # type: ignore[no-untyped-call]
    target = f"charloom_{handler}_{kernels_in_use().suffix}"
    made = jax.ffi.ffi_call(target, shapes, vmap_method="sequential", input_output_aliases=dict(in_place))(
        *arguments,
        hard_gates=np.int32(activations.gate == "hard_sigmoid"),
        relu=np.int32(activations.cell == "relu"),
    )
    return tuple(made)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def lstm_sequence(
    projected: Float[Array, "time lanes gates"],
    recurrent_kernel: Float[Array, "hidden gates"],
    carry: tuple[_State, _State],
    resets: _Resets,
    activations: Activations,
) -> tuple[_Outputs, tuple[_State, _State]]:
    """Returns what `charloom.kernels.lstm_sequence` does; `carry` is (h, c)."""
    outputs, cells, _ = _lstm(projected, recurrent_kernel, carry, resets, activations, kept=False)
    return outputs, (outputs[-1], cells[-1])


def _lstm(
    projected: Array,
    recurrent_kernel: Array,
    carry: tuple[Array, Array],
    resets: Array,
    activations: Activations,
    *,
    kept: bool,
) -> Any:
    time, lanes, gates = projected.shape
    shape = (lanes, recurrent_kernel.shape[0])
    # A gradient needs the gates, and c after each step; else one c is enough.
    shapes = (time, *shape), (time if kept else 1, *shape), (time, lanes, gates) if kept else (0,)
    in_place = {0: 2} if kept else {}
    return _call("lstm_forward", shapes, activations, projected, recurrent_kernel, *carry, resets, in_place=in_place)


def _lstm_forward(
    projected: Array,
    recurrent_kernel: Array,
    carry: tuple[Array, Array],
    resets: Array,
    activations: Activations,
) -> Any:
    outputs, cells, gates = _lstm(projected, recurrent_kernel, carry, resets, activations, kept=True)
    return (outputs, (outputs[-1], cells[-1])), (recurrent_kernel, *carry, resets, outputs, cells, gates)


def _lstm_backward(activations: Activations, residuals: tuple[Array, ...], cotangents: Any) -> Any:
    kernel, start, start_cell, *_, gates = residuals
    d_outputs, d_last = cotangents
    shapes = gates.shape, kernel.shape, start.shape, start_cell.shape
    arguments = *residuals, d_outputs, *d_last
    d_projected, d_kernel, *d_carry = _call("lstm_backward", shapes, activations, *arguments, in_place={6: 0})
    return d_projected, d_kernel, tuple(d_carry), None


lstm_sequence.defvjp(_lstm_forward, _lstm_backward)


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def gru_sequence(
    projected: Float[Array, "time lanes gates"],
    recurrent_kernel: Float[Array, "hidden gates"],
    recurrent_bias: Float[Array, " gates"],
    carry: _State,
    resets: _Resets,
    activations: Activations,
) -> tuple[_Outputs, _State]:
    """Returns what `charloom.kernels.gru_sequence` does."""
    outputs, _ = _gru(projected, recurrent_kernel, recurrent_bias, carry, resets, activations, kept=False)
    return outputs, outputs[-1]


def _gru(
    projected: Array,
    recurrent_kernel: Array,
    recurrent_bias: Array,
    carry: Array,
    resets: Array,
    activations: Activations,
    *,
    kept: bool,
) -> Any:
    time = len(projected)
    lanes, hidden = carry.shape
    shapes = (time, lanes, hidden), (time, lanes, 4 * hidden) if kept else (0,)
    return _call("gru_forward", shapes, activations, projected, recurrent_kernel, recurrent_bias, carry, resets)


def _gru_forward(
    projected: Array,
    recurrent_kernel: Array,
    recurrent_bias: Array,
    carry: Array,
    resets: Array,
    activations: Activations,
) -> Any:
    outputs, gates = _gru(projected, recurrent_kernel, recurrent_bias, carry, resets, activations, kept=True)
    return (outputs, outputs[-1]), (recurrent_kernel, carry, resets, outputs, gates)


def _gru_backward(activations: Activations, residuals: tuple[Array, ...], cotangents: tuple[Array, Array]) -> Any:
    kernel, start, _, outputs, _ = residuals
    projected = (*outputs.shape[:2], kernel.shape[1])
    shapes = projected, projected, kernel.shape, start.shape
    d_projected, d_product, d_kernel, d_start = _call("gru_backward", shapes, activations, *residuals, *cotangents)
    return d_projected, d_kernel, d_product.sum(axis=(0, 1)), d_start, None


gru_sequence.defvjp(_gru_forward, _gru_backward)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def elman_sequence(
    projected: Float[Array, "time lanes hidden"],
    recurrent_kernel: Float[Array, "hidden hidden"],
    carry: _State,
    resets: _Resets,
    activations: Activations,
) -> tuple[_Outputs, _State]:
    """Returns what `charloom.kernels.elman_sequence` does."""
    arguments = projected, recurrent_kernel, carry, resets
    (outputs,) = _call("elman_forward", (projected.shape,), activations, *arguments, in_place={0: 0})
    return outputs, outputs[-1]


def _elman_forward(
    projected: Array, recurrent_kernel: Array, carry: Array, resets: Array, activations: Activations
) -> Any:
    outputs, last = elman_sequence(projected, recurrent_kernel, carry, resets, activations)
    return (outputs, last), (recurrent_kernel, carry, resets, outputs)


def _elman_backward(activations: Activations, residuals: tuple[Array, ...], cotangents: tuple[Array, Array]) -> Any:
    kernel, start, _, outputs = residuals
    shapes = outputs.shape, kernel.shape, start.shape
    return *_call("elman_backward", shapes, activations, *residuals, *cotangents), None


elman_sequence.defvjp(_elman_forward, _elman_backward)
