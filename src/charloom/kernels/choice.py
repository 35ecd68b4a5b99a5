"""Which kernels run: the native ones where they can be had, else the reference, which is the definition.

`CHARLOOM_KERNELS` chooses: `native`, `reference`, or `auto` (the default), which is native where that can be had.
See docs/design/kernels.md.
"""

import ctypes
import logging
import math
import os
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from charloom.errors import CharloomError
from charloom.kernels.build import KernelsUnavailableError, library_path
from charloom.kernels.inputs import LayerInputs
from charloom.kernels.operations import HANDLERS, declare
from charloom.machine import available_cores
from charloom.settings import CellActivation

logger = logging.getLogger("charloom")

_AS_ASKED = "CHARLOOM_KERNELS says so"
_CHOICES = ("native", "reference", "auto")
# Those under which a unit needs no other.
_NATIVE_CELLS: tuple[CellActivation, ...] = ("tanh", "relu")
# XLA unrolls a short loop over a small layer and fuses it into the rest of an update, which is faster.
_SMALL_UNITS = 64
_SHORT_STEPS = 8

# The largest vector that the kernels know, in floats: what they keep for themselves has room for whole ones.
MAX_VECTOR_WIDTH = 16


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


def uses_native_kernel(
    inputs: LayerInputs,
    recurrent_kernel: Float[Array, "hidden gates"],
    cell_activation: CellActivation,
) -> bool:
    """Returns whether the native kernels run a layer. That is independent of the other batch rows."""
    return math.prod(inputs.shape) > 0 and has_native_kernel(recurrent_kernel, cell_activation, inputs.shape[0])


def uses_native_dense(inputs: Float[Array, "*batch input"], kernel: Float[Array, "input output"]) -> bool:
    """Returns whether the native kernels run a head: one of whole vectors, after more than one step.

    Like `uses_native_kernel` it is independent of the other batch rows.
    """
    return (
        inputs.ndim == 3
        and inputs.shape[0] > 1
        and inputs.size > 0
        and inputs.dtype == kernel.dtype == jnp.float32
        and len(kernel) >= _SMALL_UNITS
        and len(kernel) % MAX_VECTOR_WIDTH == 0
        and kernels_in_use().name == "native"
    )


def has_native_kernel(
    recurrent_kernel: Float[Array, "hidden gates"], cell_activation: CellActivation, time_steps: int | None = None
) -> bool:
    """Returns whether there are native kernels for such a layer, and they are in use."""
    return (
        recurrent_kernel.dtype == jnp.float32
        and reference_reason(len(recurrent_kernel), cell_activation, time_steps) is None
        and _chosen(_choice()).name == "native"
    )


def reference_reason(units: int, cell_activation: CellActivation, time_steps: int | None = None) -> str | None:
    """Returns why a layer runs on the reference even where there are native kernels; None where it does not.

    Args:
        units: of the layer.
        cell_activation: of the layer.
        time_steps: of a sequence; None for generation, whose weights stay as they are, and which runs on the CPU.
    """
    choice = _choice()
    if choice == "reference":
        return _AS_ASKED
    if cell_activation not in _NATIVE_CELLS:
        return f"{cell_activation} cells"
    if time_steps is not None and not _computes_on_cpu():
        return f"computed on a {jax.default_backend()}"
    if choice == "native" or time_steps is None:
        return None
    if units < _SMALL_UNITS and time_steps <= _SHORT_STEPS:
        return "few units and few time steps"
    # One step has nothing to keep packed weights for.
    return "one time step" if time_steps == 1 else None


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
            raise CharloomError(f"CHARLOOM_KERNELS=native, but native kernels are unavailable: {problem}.") from None
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
    declare(library)
    # Programs that JAX keeps between processes know handlers by their names: another source has other names.
    suffix = path.stem.removeprefix("kernels-")
    for handler in HANDLERS:
        # JAX leaves this function without types.
        function = jax.ffi.pycapsule(getattr(library, f"charloom_{handler}"))  # type: ignore[no-untyped-call]
        jax.ffi.register_ffi_target(f"charloom_{handler}_{suffix}", function, platform="cpu")
    library.charloom_use_threads(available_cores())
    return library, suffix
