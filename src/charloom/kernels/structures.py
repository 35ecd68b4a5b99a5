"""The structures that Python and the native library both describe (`cpp/generator.h`, `cpp/sampling.h`).

Their sizes are compared when the library is loaded, so a field that only one side knows is found before any call.
"""

import ctypes
from collections.abc import Mapping

import numpy as np

from charloom.kernels.build import KernelsUnavailableError

Pointer = ctypes.c_void_p


class Weights(ctypes.Structure):
    """The weights of a network."""

    _fields_ = (
        *((name, ctypes.c_int) for name in ("layers", "hidden", "vocab", "rows")),
        *(
            (name, Pointer)
            for name in ("table", "input_kernels", "biases", "recurrent_kernels", "recurrent_biases", "activations")
        ),
        *((name, Pointer) for name in ("head_kernel", "head_bias")),
    )


class LayerActivations(ctypes.Structure):
    """The activations of a layer."""

    _fields_ = (("hard_gates", ctypes.c_bool), ("relu", ctypes.c_bool))


class States(ctypes.Structure):
    """The states of several texts."""

    _fields_ = (
        ("count", ctypes.c_int),
        ("room", ctypes.c_int),
        ("hidden", Pointer),
        ("cells", Pointer),
        ("logits", Pointer),
    )


class Refills(ctypes.Structure):
    """Texts that begin in the places of texts that end within a call."""

    _fields_ = (
        *((name, ctypes.c_int) for name in ("end_token", "length", "waiting")),
        *((name, Pointer) for name in ("streams", "hidden", "cells", "logits", "places", "steps")),
        ("begun", ctypes.c_int),
    )


class Task(ctypes.Structure):
    """One call of a generator."""

    _fields_ = (("steps", ctypes.c_int), ("rows", Pointer), ("samplers", Pointer), ("refill", Pointer))


SAMPLER_RECORD = np.dtype(
    [
        ("seed", np.uint32, 2),
        ("stream", np.uint32),
        ("position", np.uint32),
        ("temperature", np.float32),
        ("top_k", np.int32),
        ("top_p", np.uint32),
        ("steps_per_nat", np.float32),
        ("coarse", np.uintp),
        ("fine", np.uintp),
    ],
    align=True,
)
"""Everything that determines a text's sampled tokens except its logits, as numbers of `charloom.inference.sampling`.

- `seed`: the upper and the lower word of the seed.
- `stream`: the index of the text's stream of random numbers.
- `position`: the position of the next sampled token in the text.
- `temperature`: negative for the most likely token.
- `top_k`: 0 for all tokens.
- `top_p`: in units of 2**-32; 0 for all tokens.
- `steps_per_nat`, `coarse`, `fine`: the scale and the addresses of tables of powers of two. Callers keep the tables
  alive.
"""

SIZES: Mapping[str, int] = {
    "Weights": ctypes.sizeof(Weights),
    "Activations": ctypes.sizeof(LayerActivations),
    "GeneratorState": ctypes.sizeof(States),
    "Refill": ctypes.sizeof(Refills),
    "Task": ctypes.sizeof(Task),
    "Sampler": SAMPLER_RECORD.itemsize,
}
"""The size of each structure in bytes, by its name in the library."""


def require_equal_sizes(library: ctypes.CDLL) -> None:
    """Compares the sizes of all structures with the library's.

    Raises:
        KernelsUnavailableError: one differs.
    """
    for name, size in SIZES.items():
        found = library.charloom_size_of(name.encode())
        if found != size:
            raise KernelsUnavailableError(f"the library's {name} has {found} bytes, but charloom's has {size}")
