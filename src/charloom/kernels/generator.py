"""Native generation: weights are packed once, and one call generates many characters of several texts."""

import ctypes
import weakref
from collections.abc import Sequence
from typing import NamedTuple, get_args

import numpy as np
from jaxtyping import Float32, Int32, Shaped, UInt32

from charloom.cell_facts import CELL_FACTS, CellFacts, CellName
from charloom.kernels.choice import loaded_library
from charloom.kernels.native import Activations
from charloom.kernels.operations import call, require_array
from charloom.kernels.structures import SAMPLER_RECORD, LayerActivations, Pointer, Refills, States, Task, Weights
from charloom.settings import WeightsPrecision


class LayerWeights(NamedTuple):
    """The weights of a recurrent layer. The first layer's kernel and bias are not used, because the table has them."""

    kernel: Float32[np.ndarray, "input gates"]
    bias: Float32[np.ndarray, " gates"]
    recurrent_kernel: Float32[np.ndarray, "hidden gates"]
    recurrent_bias: Float32[np.ndarray, " gates"] | None
    activations: Activations


class GeneratorState(NamedTuple):
    """The state of several texts between two characters. `Generator.run` changes the arrays in place.

    Attributes:
        hidden: h of each layer.
        cells: c of each layer of an LSTM; unused for other cells.
        logits: the logits of the next token.
    """

    hidden: Float32[np.ndarray, "layers texts hidden"]
    cells: Float32[np.ndarray, "layers texts hidden"]
    logits: Float32[np.ndarray, "texts vocab"]


class Refill(NamedTuple):
    """Texts that begin in the places of texts that end within a call of `Generator.run`.

    A text ends before it would sample `end_token`, and after `length` tokens. If no text waits any more, the ended text
    continues, with its `end_token`.

    Attributes:
        state: the state in which the texts begin: that of a single text.
        streams: the indexes of their streams, in their order. Seed and rule are those of the place.
        length: maximum number of tokens of a text.
        end_token: negative if no token ends a text.
    """

    state: GeneratorState
    streams: UInt32[np.ndarray, " waiting"]
    length: int
    end_token: int


class Begun(NamedTuple):
    """The texts of a `Refill` that have begun, which are the first ones.

    Attributes:
        places: the place of each text.
        steps: the step of its first token, in a place's row of tokens.
    """

    places: Int32[np.ndarray, " begun"]
    steps: Int32[np.ndarray, " begun"]


class Generator:
    """A network's weights, packed for generation."""

    def __init__(
        self,
        cell: CellName,
        table: Float32[np.ndarray, "rows gates"],
        layers: Sequence[LayerWeights],
        head: tuple[Float32[np.ndarray, "hidden vocab"], Float32[np.ndarray, " vocab"]] | None,
        precision: WeightsPrecision = "float32",
    ):
        """Packs the weights.

        Args:
            cell: the cell of all layers.
            table: the first layer's projected inputs.
            layers: the layers, first to last, all of the same size.
            head: kernel and bias; None if the last layer's outputs are the logits.
            precision: the precision of the packed kernels, and of the states that they are multiplied by. "int8" gives
                the same texts on all processors from the same table, biases and kernels.

        Raises:
            MemoryError: there is not enough memory for a copy of the weights.
            ValueError: the cell has no native kernels, or the shapes of the weights do not fit together. For "int8",
                a weight is not finite, or the cell activation is not tanh.
        """
        facts = CELL_FACTS[cell]
        if facts.native_id is None:
            raise ValueError(f"{facts.label} has no native kernels")
        library = loaded_library()
        self.layers, self.hidden = len(layers), len(layers[0].recurrent_kernel)
        self.vocab = self.hidden if head is None else len(head[1])
        _require_fitting(facts, table, layers, head)
        held = [np.ascontiguousarray(array) for array in (table, *(head or ()))]

        def pointers(name: str) -> ctypes.Array[ctypes.c_void_p]:
            arrays = [getattr(layer, name) for layer in layers]
            kept = [None if array is None else np.ascontiguousarray(array) for array in arrays]
            held.extend(array for array in kept if array is not None)
            return (Pointer * len(layers))(*(None if array is None else array.ctypes.data for array in kept))

        names = ("kernel", "bias", "recurrent_kernel", "recurrent_bias")
        of_layers = [pointers(name) for name in names]
        activations = (LayerActivations * len(layers))(
            *(
                LayerActivations(layer.activations.gate == "hard_sigmoid", layer.activations.cell == "relu")
                for layer in layers
            )
        )
        weights = Weights(
            *(self.layers, self.hidden, self.vocab, len(table), held[0].ctypes.data),
            *(ctypes.addressof(pointers_of_layers) for pointers_of_layers in of_layers),
            ctypes.addressof(activations),
            *(array.ctypes.data for array in held[1 : 1 + len(head or ())]),
        )
        made = Pointer()
        number = get_args(WeightsPrecision).index(precision)
        call(library.charloom_new_generator, facts.native_id, number, ctypes.byref(weights), ctypes.byref(made))
        self._run, self._handle = library.charloom_run_generator, made
        weakref.finalize(self, library.charloom_delete_generator, made)

    def __copy__(self) -> "Generator":
        return self  # it is immutable, and its memory must be freed only once

    def __deepcopy__(self, memo: dict[int, object]) -> "Generator":
        return self

    def begin(self, texts: int) -> GeneratorState:
        """Returns the state of `texts` texts before their first character."""
        shape = (self.layers, texts, self.hidden)
        return GeneratorState(
            np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros((texts, self.vocab), np.float32)
        )

    def run(
        self,
        state: GeneratorState,
        rows: Int32[np.ndarray, "texts time"],
        samplers: Shaped[np.ndarray, " texts"] | None = None,
        refill: Refill | None = None,
    ) -> Begun:
        """Reads and samples tokens for as many texts as there are rows. `state` and `rows` are changed in place.

        Args:
            state: the state of at least as many texts, of which the first are used. It may be a slice with the last
                texts of a larger state.
            rows: the rows of the table to read, in C order. A negative number is replaced by a sampled token.
            samplers: records of `SAMPLER_RECORD`, which are not changed; None if no token is sampled.
            refill: texts that begin in the places of texts that end.

        Returns:
            The texts of `refill` that have begun.

        Raises:
            MemoryError: there is not enough memory. The contents of `state` and `rows` are then undefined.
            ValueError: an array has the wrong shape, type or order, a row is outside the table, or a record is invalid.
        """
        count, steps = rows.shape
        require_array("rows", rows, (count, steps), np.int32)
        room = self._room(state, count)
        if not rows.flags.c_contiguous or not rows.flags.writeable:
            raise ValueError("rows must be in C order and writable")
        if samplers is not None:
            require_array("samplers", samplers, (count,), SAMPLER_RECORD)
            if not samplers.flags.c_contiguous:
                raise ValueError("samplers must be in C order")
        arrays = States(count, room, *(array.ctypes.data for array in state))
        task = Task(steps, rows.ctypes.data, None if samplers is None else samplers.ctypes.data, None)
        begun = Begun(*np.empty((2, 0 if refill is None else len(refill.streams)), np.int32))
        if refill is None:
            call(self._run, self._handle, ctypes.byref(arrays), ctypes.byref(task))
            return begun
        require_array("streams", refill.streams, begun.places.shape, np.uint32)
        if self._room(refill.state, 1) != 1:
            raise ValueError("texts begin in the state of a single text")
        pointers = [array.ctypes.data for array in (refill.streams, *refill.state, *begun)]
        filled = Refills(refill.end_token, refill.length, len(refill.streams), *pointers, 0)
        task.refill = ctypes.addressof(filled)
        call(self._run, self._handle, ctypes.byref(arrays), ctypes.byref(task))
        return Begun(*(array[: filled.begun] for array in begun))

    def _room(self, state: GeneratorState, count: int) -> int:
        """Returns how many texts the arrays have room for. `state` may be a slice of the last of them.

        Raises:
            ValueError: the arrays do not fit this network, or have fewer than `count` texts.
        """
        hidden, cells, logits = state
        given = logits.shape[0]
        for name, array in (("hidden", hidden), ("cells", cells)):
            require_array(name, array, (self.layers, given, self.hidden), np.float32)
        require_array("logits", logits, (given, self.vocab), np.float32)
        if given < count:
            raise ValueError(f"there are states of {given} texts, but rows of {count}")
        text_bytes = 4 * self.hidden
        # In a slice of a larger state, the distance between layers is that of the larger state.
        room = hidden.strides[0] // text_bytes if self.layers > 1 else given
        in_order = (room * text_bytes, text_bytes, 4)
        if (
            room < given
            or any(array.strides[1:] != in_order[1:] for array in (hidden, cells))
            or (self.layers > 1 and not hidden.strides[0] == cells.strides[0] == in_order[0])
            or not logits.flags.c_contiguous
            or not (hidden.flags.writeable and cells.flags.writeable and logits.flags.writeable)
        ):
            raise ValueError("states must be in C order and writable")
        return room


def _require_fitting(
    facts: CellFacts,
    table: np.ndarray,
    layers: Sequence[LayerWeights],
    head: tuple[np.ndarray, np.ndarray] | None,
) -> None:
    """Checks that the weights fit together, and that all layers have the same size.

    Raises:
        ValueError: a shape or a type is wrong.
    """
    hidden = len(layers[0].recurrent_kernel)
    gates = facts.gate_count * hidden
    require_array("the table", table, (len(table), gates), np.float32)
    for number, layer in enumerate(layers):
        require_array("a recurrent kernel", layer.recurrent_kernel, (hidden, gates), np.float32)
        if number:
            require_array("a kernel", layer.kernel, (hidden, gates), np.float32)
            require_array("a bias", layer.bias, (gates,), np.float32)
        if (layer.recurrent_bias is not None) != facts.has_recurrent_bias:
            raise ValueError(f"{facts.label} must have {'' if facts.has_recurrent_bias else 'no '}recurrent biases")
        if layer.recurrent_bias is not None:
            require_array("a recurrent bias", layer.recurrent_bias, (gates,), np.float32)
    if head is not None:
        kernel, bias = head
        require_array("the head's kernel", kernel, (hidden, len(bias)), np.float32)
        require_array("the head's bias", bias, (len(bias),), np.float32)
    vocab = hidden if head is None else len(head[1])
    if len(table) < vocab:
        raise ValueError(f"the table has {len(table)} rows, fewer than the {vocab} tokens")
