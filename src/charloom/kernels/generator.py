"""A network that writes, natively: its weights packed once, the loop over characters and their choice in one call."""

import ctypes
import weakref
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, Shaped

from charloom.kernels.choice import loaded_library
from charloom.kernels.native import Activations
from charloom.settings import CellName

_CELLS: tuple[CellName, ...] = ("lstm", "gru", "elman")
_Pointer = ctypes.c_void_p


class LayerWeights(NamedTuple):
    """A recurrent layer's weights; the first layer's input kernel and bias are in the table."""

    kernel: Float32[np.ndarray, "input gates"]
    bias: Float32[np.ndarray, " gates"]
    recurrent_kernel: Float32[np.ndarray, "hidden gates"]
    recurrent_bias: Float32[np.ndarray, " gates"] | None
    activations: Activations


class Streams(NamedTuple):
    """Texts between two characters, in arrays that reading and writing change.

    Attributes:
        hidden: h of each layer.
        cells: c of each layer, of an LSTM; else unused.
        logits: of the next token.
    """

    hidden: Float32[np.ndarray, "layers streams hidden"]
    cells: Float32[np.ndarray, "layers streams hidden"]
    logits: Float32[np.ndarray, "streams vocab"]


WRITER = np.dtype(
    [
        ("seed", np.uint32, 2),
        ("stream", np.uint32),
        ("position", np.uint32),
        ("temperature", np.float32),
        ("top_k", np.int32),
        ("top_p", np.uint32),
        ("steps_a_nat", np.float32),
        ("coarse", np.uintp),
        ("fine", np.uintp),
    ],
    align=True,
)
"""All that a stream's choices depend on beside its logits, as numbers of `charloom.inference.sampling`.

The upper and the lower word of the seed; the stream's own number; the position of the next token that is written; a
temperature, below zero for the most likely token; `top_k`, 0 for all tokens; `top_p` in units of 2**-32, 0 for all; and
the tables of powers of two with their addresses, which whoever makes such a record keeps alive.
"""


class _Weights(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int) for name in ("layers", "hidden", "vocab", "rows")),
        *(
            (name, _Pointer)
            for name in ("table", "input_kernels", "biases", "recurrent_kernels", "recurrent_biases", "activations")
        ),
        *((name, _Pointer) for name in ("head_kernel", "head_bias")),
    )


class _Activations(ctypes.Structure):
    _fields_ = (("hard_gates", ctypes.c_bool), ("relu", ctypes.c_bool))


class _Streams(ctypes.Structure):
    _fields_ = (
        ("count", ctypes.c_int),
        ("room", ctypes.c_int),
        ("hidden", _Pointer),
        ("cells", _Pointer),
        ("logits", _Pointer),
    )


class _Task(ctypes.Structure):
    _fields_ = (("steps", ctypes.c_int), ("rows", _Pointer), ("writers", _Pointer))


class Generator:
    """A network's weights, packed for writing."""

    def __init__(
        self,
        cell: CellName,
        table: Float32[np.ndarray, "rows gates"],
        layers: Sequence[LayerWeights],
        head: tuple[Float32[np.ndarray, "hidden vocab"], Float32[np.ndarray, " vocab"]] | None,
    ):
        """Packs the weights.

        Args:
            cell: of all layers.
            table: the first layer's projected inputs.
            layers: first to last, of one size.
            head: kernel and bias; None where the last layer's outputs are the logits.

        Raises:
            MemoryError: there is not enough for a copy of them.
        """
        library = loaded_library()
        library.charloom_new_generator.restype = _Pointer
        library.charloom_run_generator.restype = ctypes.c_bool
        self.layers, self.hidden = len(layers), len(layers[0].recurrent_kernel)
        self.vocab = self.hidden if head is None else len(head[1])
        held = [np.ascontiguousarray(array, np.float32) for array in (table, *(head or ()))]

        def pointers(name: str) -> ctypes.Array[ctypes.c_void_p]:
            arrays = [getattr(layer, name) for layer in layers]
            kept = [None if array is None else np.ascontiguousarray(array, np.float32) for array in arrays]
            held.extend(array for array in kept if array is not None)
            return (_Pointer * len(layers))(*(None if array is None else array.ctypes.data for array in kept))

        names = ("kernel", "bias", "recurrent_kernel", "recurrent_bias")
        of_layers = [pointers(name) for name in names]
        activations = (_Activations * len(layers))(
            *(
                _Activations(layer.activations.gate == "hard_sigmoid", layer.activations.cell == "relu")
                for layer in layers
            )
        )
        weights = _Weights(
            *(self.layers, self.hidden, self.vocab, len(table), held[0].ctypes.data),
            *(ctypes.addressof(pointers_of_layers) for pointers_of_layers in of_layers),
            ctypes.addressof(activations),
            *(array.ctypes.data for array in held[1 : 1 + len(head or ())]),
        )
        self._run = library.charloom_run_generator
        self._handle = library.charloom_new_generator(_CELLS.index(cell), ctypes.byref(weights))
        if not self._handle:
            raise MemoryError("not enough memory for the weights")
        delete = library.charloom_delete_generator
        delete.argtypes = [_Pointer]
        weakref.finalize(self, delete, self._handle)

    def begin(self, streams: int) -> Streams:
        """Returns streams before their first character."""
        state = (self.layers, streams, self.hidden)
        return Streams(
            np.zeros(state, np.float32), np.zeros(state, np.float32), np.zeros((streams, self.vocab), np.float32)
        )

    def run(
        self,
        streams: Streams,
        rows: Int32[np.ndarray, "streams time"],
        writers: Shaped[np.ndarray, " streams"] | None = None,
    ) -> None:
        """Lets the first of `streams`, as many as there are rows, read and write.

        Args:
            streams: between two characters; also all from some place on.
            rows: of the table, in C order, to be read; where below zero a token is written, put in its place, and read.
            writers: as of `WRITER`; None where nothing is written. They stay as they are.

        Raises:
            MemoryError: there is not enough for so many.
        """
        count, steps = rows.shape
        # Of streams that are some of others, a layer's states begin as far apart as those of all.
        room = streams.hidden.strides[0] // streams.hidden.strides[1]
        arrays = _Streams(count, room, *(array.ctypes.data for array in streams))
        task = _Task(steps, rows.ctypes.data, None if writers is None else writers.ctypes.data)
        if not self._run(_Pointer(self._handle), ctypes.byref(arrays), ctypes.byref(task)):
            raise MemoryError("not enough memory for so many streams")
