"""The choice of kernels: native ones if they are available, otherwise the reference, which defines the results.

`CHARLOOM_KERNELS` is `native`, `reference`, or `auto` (the default), which means native kernels if they are available.
See docs/design/kernels.md.
"""

import ctypes
import logging
import math
import os
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxlib.version import __version__ as jaxlib_version
from jaxtyping import Array, Float

from charloom.cell_facts import CELL_FACTS, CellName
from charloom.errors import CharloomError
from charloom.kernels.build import KernelsUnavailableError, library_path
from charloom.kernels.inputs import LayerInputs
from charloom.kernels.operations import HANDLERS, declare
from charloom.kernels.packaged import packaged_library
from charloom.kernels.structures import require_equal_sizes
from charloom.machine import available_cores
from charloom.settings import CellActivation

logger = logging.getLogger("charloom")

_REQUESTED = "CHARLOOM_KERNELS=reference"
_CHOICES = ("native", "reference", "auto")
# The activations that are computed for each unit separately.
_NATIVE_ACTIVATIONS: tuple[CellActivation, ...] = ("tanh", "relu")
# In the order of the library's numbers.
_BFLOAT16_INSTRUCTIONS = (None, "AVX512_BF16", "AMX")
# XLA unrolls a short loop over a small layer and fuses it with the rest of an optimizer step, which is faster.
_SMALL_UNITS = 64
_SHORT_STEPS = 8

# The number of floats in the largest vector of any processor. The kernels' own arrays are padded to multiples of it.
MAX_VECTOR_WIDTH = 16


class Kernels(NamedTuple):
    """The chosen kernels.

    Attributes:
        name: `native` or `reference`.
        why: the reason for the choice, in a few words.
        suffix: the end of the names under which the native kernels are registered with XLA.
    """

    name: str
    why: str
    suffix: str = ""


def kernels_in_use() -> Kernels:
    """Returns the kernels that this process uses for most cells, and compiles the native ones if necessary.

    Raises:
        CharloomError: `CHARLOOM_KERNELS` is not a valid choice, or is `native` without native kernels.
    """
    chosen = _chosen(_choice())
    if chosen.name == "native" and not _computes_on_cpu():
        return Kernels("reference", f"computed on a {jax.default_backend()}; text is generated natively, on the CPU")
    return chosen


def uses_native_kernel(
    inputs: LayerInputs,
    recurrent_kernel: Float[Array, "hidden gates"],
    cell_activation: CellActivation,
) -> bool:
    """Returns whether native kernels compute a layer of a cell that has them.

    This is independent of the other batch rows.
    """
    return math.prod(inputs.shape) > 0 and _has_native_kernel(recurrent_kernel, cell_activation, inputs.shape[0])


def uses_native_dense(inputs: Float[Array, "*batch input"], kernel: Float[Array, "input output"]) -> bool:
    """Returns whether native kernels compute a head.

    They do if its inputs are whole vectors of more than one time step. Like `uses_native_kernel`, this is independent
    of the other batch rows.
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
    cell: CellName, recurrent_kernel: Float[Array, "hidden gates"], cell_activation: CellActivation
) -> bool:
    """Returns whether native kernels that generate with such a layer are available and in use."""
    return CELL_FACTS[cell].native_id is not None and _has_native_kernel(recurrent_kernel, cell_activation, None)


def _has_native_kernel(
    recurrent_kernel: Float[Array, "hidden gates"], cell_activation: CellActivation, time_steps: int | None
) -> bool:
    return (
        recurrent_kernel.dtype == jnp.float32
        and _layer_reason(len(recurrent_kernel), cell_activation, time_steps) is None
        and _chosen(_choice()).name == "native"
    )


def reference_reason(
    cell: CellName, units: int, cell_activation: CellActivation, time_steps: int | None = None
) -> str | None:
    """Returns why the reference computes a layer even if native kernels are available; None if it does not.

    Args:
        cell: the cell of the layer.
        units: the number of units of the layer.
        cell_activation: the cell activation of the layer.
        time_steps: the length of a sequence; None for generation, which always runs on the CPU with packed weights.
    """
    if _choice() != "reference" and CELL_FACTS[cell].native_id is None:
        return f"{CELL_FACTS[cell].label} has no native kernels"
    return _layer_reason(units, cell_activation, time_steps)


def _layer_reason(units: int, cell_activation: CellActivation, time_steps: int | None) -> str | None:
    """Returns the same as `reference_reason`, for a cell that has native kernels."""
    choice = _choice()
    if choice == "reference":
        return _REQUESTED
    if cell_activation not in _NATIVE_ACTIVATIONS:
        return f"{cell_activation} cells"
    if time_steps is not None and not _computes_on_cpu():
        return f"computed on a {jax.default_backend()}"
    if choice == "native" or time_steps is None:
        return None
    if units < _SMALL_UNITS and time_steps <= _SHORT_STEPS:
        return "few units and few time steps"
    # Packing the weights is not worthwhile for one time step.
    return "one time step" if time_steps == 1 else None


def bfloat16_instructions() -> str | None:
    """Returns the instructions with which native kernels multiply bfloat16 numbers fast; None if there are none."""
    if kernels_in_use().name != "native":
        return None
    return _BFLOAT16_INSTRUCTIONS[loaded_library().charloom_bfloat16_instructions()]


def loaded_library() -> ctypes.CDLL:
    """Returns the library that `kernels_in_use` found."""
    return _load().library


def _computes_on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def _choice() -> str:
    return os.environ.get("CHARLOOM_KERNELS", "auto")


@cache
def _chosen(choice: str) -> Kernels:
    if choice not in _CHOICES:
        raise CharloomError(f"CHARLOOM_KERNELS must be one of {', '.join(_CHOICES)}; got {choice!r}.")
    if choice == "reference":
        return Kernels("reference", _REQUESTED)
    try:
        loaded = _load()
    except KernelsUnavailableError as problem:
        if choice == "native":
            raise CharloomError(
                f"CHARLOOM_KERNELS=native, but native kernels are unavailable: {problem}. "
                "Fix this, or unset CHARLOOM_KERNELS to use the slower reference."
            ) from None
        effect = "using the slower reference" if _computes_on_cpu() else "generating text is slow"
        logger.warning("native kernels are unavailable, %s: %s", effect, problem)
        return Kernels("reference", str(problem))
    return Kernels("native", loaded.why, loaded.suffix)


class _Loaded(NamedTuple):
    """The library, the suffix of its handlers' names in XLA, and why it is this one."""

    library: ctypes.CDLL
    suffix: str
    why: str


@cache
def _load() -> _Loaded:
    # `CXX` asks for that compiler's library.
    packaged = None if os.environ.get("CXX") else packaged_library()
    if packaged is not None:
        try:
            suffix = packaged.sha256[:16]
            return _Loaded(_register(packaged.path, suffix), suffix, packaged.why)
        except KernelsUnavailableError as problem:
            logger.warning("the wheel's kernels do not work here: %s", problem)
    path = library_path()
    suffix = path.stem.removeprefix("kernels-")
    return _Loaded(_register(path, suffix), suffix, "compiled for this processor")


def _register(path: Path, suffix: str) -> ctypes.CDLL:
    """Loads the library, and registers its handlers with XLA.

    Raises:
        KernelsUnavailableError: the system cannot load it, or this jaxlib does not support its version of XLA's FFI.
    """
    try:
        library = ctypes.CDLL(str(path))
        declare(library)
    except (OSError, AttributeError) as error:
        raise KernelsUnavailableError(f"cannot load {path}: {error}") from error
    require_equal_sizes(library)
    # JAX may cache compiled programs, which refer to handlers by name. Other sources therefore need other names.
    for handler in HANDLERS:
        # This function of JAX is untyped.
        function = jax.ffi.pycapsule(getattr(library, f"charloom_{handler}"))  # type: ignore[no-untyped-call]
        try:
            jax.ffi.register_ffi_target(f"charloom_{handler}_{suffix}", function, platform="cpu")
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise KernelsUnavailableError(f"jaxlib {jaxlib_version} refuses {path}: {reason}") from error
    library.charloom_use_threads(available_cores())
    return library
