"""A network that writes, natively: its weights packed once, the loop over characters and their choice in one call."""

import ctypes
import weakref
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, Shaped

from charloom.kernels.choice import loaded_library
from charloom.kernels.native import Activations
from charloom.kernels.operations import call, require_array
from charloom.settings import CellName

# How many pre-activations a unit has, of each cell, in the order of the library's numbers for them.
_PARTS: dict[CellName, int] = {"lstm": 4, "gru": 3, "elman": 1}
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
    """A network's weights, packed for writing.

    Attributes:
        CELLS: the cells that there are native kernels for.
    """

    CELLS: ClassVar[tuple[CellName, ...]] = tuple(_PARTS)

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
            ValueError: they do not fit one another.
        """
        library = loaded_library()
        self.layers, self.hidden = len(layers), len(layers[0].recurrent_kernel)
        self.vocab = self.hidden if head is None else len(head[1])
        _require_fitting(cell, table, layers, head)
        held = [np.ascontiguousarray(array) for array in (table, *(head or ()))]

        def pointers(name: str) -> ctypes.Array[ctypes.c_void_p]:
            arrays = [getattr(layer, name) for layer in layers]
            kept = [None if array is None else np.ascontiguousarray(array) for array in arrays]
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
        made = _Pointer()
        call(library.charloom_new_generator, self.CELLS.index(cell), ctypes.byref(weights), ctypes.byref(made))
        self._run, self._handle = library.charloom_run_generator, made
        weakref.finalize(self, library.charloom_delete_generator, made)

    def __copy__(self) -> "Generator":
        return self  # nothing of it ever changes, and its memory is to be given back once

    def __deepcopy__(self, memo: dict[int, object]) -> "Generator":
        return self

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
            writers: as of `SAMPLER_RECORD`; None where nothing is written. They stay as they are.

        Raises:
            MemoryError: there is not enough for so many. What `streams` and `rows` hold is then lost.
            ValueError: an array is not as it should be, a row not of the table, or a rule not one `SAMPLER_RECORD`.
        """
        count, steps = rows.shape
        require_array("rows", rows, (count, steps), np.int32)
        room = self._room(streams, count)
        if not rows.flags.c_contiguous or not rows.flags.writeable:
            raise ValueError("rows are to be in C order, and to be written to")
        if writers is not None:
            require_array("writers", writers, (count,), SAMPLER_RECORD)
            if not writers.flags.c_contiguous:
                raise ValueError("writers are to be in C order")
        arrays = _Streams(count, room, *(array.ctypes.data for array in streams))
        task = _Task(steps, rows.ctypes.data, None if writers is None else writers.ctypes.data)
        call(self._run, self._handle, ctypes.byref(arrays), ctypes.byref(task))

    def _room(self, streams: Streams, count: int) -> int:
        """Returns how many streams the arrays are of, of which `streams` may be only the last ones.

        Raises:
            ValueError: they are not this network's, or of fewer streams than `count`.
        """
        hidden, cells, logits = streams
        given = logits.shape[0]
        for name, array in (("hidden", hidden), ("cells", cells)):
            require_array(name, array, (self.layers, given, self.hidden), np.float32)
        require_array("logits", logits, (given, self.vocab), np.float32)
        if given < count:
            raise ValueError(f"there are states of {given} streams, and rows of {count}")
        a_stream = 4 * self.hidden
        # Of streams that are some of others, a layer's states begin as far apart as those of all.
        room = hidden.strides[0] // a_stream if self.layers > 1 else given
        in_order = (room * a_stream, a_stream, 4)
        if (
            room < given
            or any(array.strides[1:] != in_order[1:] for array in (hidden, cells))
            or (self.layers > 1 and not hidden.strides[0] == cells.strides[0] == in_order[0])
            or not logits.flags.c_contiguous
            or not (hidden.flags.writeable and cells.flags.writeable and logits.flags.writeable)
        ):
            raise ValueError("states are to be in C order, and to be written to")
        return room


def _require_fitting(
    cell: CellName,
    table: np.ndarray,
    layers: Sequence[LayerWeights],
    head: tuple[np.ndarray, np.ndarray] | None,
) -> None:
    """Makes sure that the weights are those of one network, whose layers have one size.

    Raises:
        ValueError: a shape or a type is another.
    """
    hidden = len(layers[0].recurrent_kernel)
    gates = _PARTS[cell] * hidden
    require_array("the table", table, (len(table), gates), np.float32)
    for number, layer in enumerate(layers):
        require_array("a recurrent kernel", layer.recurrent_kernel, (hidden, gates), np.float32)
        if number:
            require_array("a kernel", layer.kernel, (hidden, gates), np.float32)
            require_array("a bias", layer.bias, (gates,), np.float32)
        if (layer.recurrent_bias is not None) != (cell == "gru"):
            raise ValueError("recurrent biases are the GRU's")
        if layer.recurrent_bias is not None:
            require_array("a recurrent bias", layer.recurrent_bias, (gates,), np.float32)
    if head is not None:
        kernel, bias = head
        require_array("the head's kernel", kernel, (hidden, len(bias)), np.float32)
        require_array("the head's bias", bias, (len(bias),), np.float32)
    vocab = hidden if head is None else len(head[1])
    if len(table) < vocab:
        raise ValueError(f"the table has {len(table)} rows, fewer than the {vocab} tokens that are written and read")
