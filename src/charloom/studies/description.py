"""What a report tells of a rung's layers, and of its data as the tutorials show it."""

from typing import Any

import jax

from charloom.data import TokenStream
from charloom.kernels import kernels_in_use, reference_reason
from charloom.models import CELLS, Cell, Dense, Network, SequenceModel
from charloom.studies.framing import Framing, PaddedPieces, ReadingLanes, ShuffledWindows, StatefulRows
from charloom.studies.ladder import SharedLayers
from charloom.studies.study_data import StudyData

_KERAS_NAMES = {"lstm": "LSTM", "gru": "GRU", "elman": "SimpleRNN"}
_ROWS = 8
_ROUND_TRIP = 100


def layer_table(model: SequenceModel, framing: Framing) -> list[dict[str, Any]]:
    """Returns a row for each layer: its name, the shape of its outputs in an update, its parameters, its kernels."""
    every = [framing.lanes, framing.length]
    last = every[:1] if framing.last_only else every
    if isinstance(model, SharedLayers):
        units = model.mix.kernel.shape[1]
        return [
            _row("embedding, shared", [*every, model.embedding.shape[1]], model.embedding),
            _row("dense (ReLU), shared", [*every, units], model.read),
            _row("dense (tanh), shared", [*last, units], model.mix),
            _row("dense, logits", [*last, model.head.kernel.shape[1]], model.head),
        ]
    assert isinstance(model, Network)
    width = model.cells[0].kernel.shape[0]
    rows = [
        _row(
            {"embedding": "embedding", "one-hot": "one-hot, as indices", "scalar": "one number a letter"}[model.inputs],
            [*every, width],
            model.embedding,
        )
    ]
    for layer, cell in enumerate(model.cells):
        shape = last if layer + 1 == len(model.cells) else every
        rows.append(_row(_cell_name(cell), [*shape, cell.hidden], cell) | {"kernels": _kernels(cell, framing.length)})
    if isinstance(model.head, Dense):
        rows.append(_row("dense, logits", [*last, model.vocab_size], model.head))
    return rows


def _row(name: str, shape: list[int], layer: Any) -> dict[str, Any]:
    parameters = sum(array.size for array in jax.tree.leaves(layer))
    return {"name": name, "output_shape": shape, "parameters": parameters, "kernels": None}


def _kernels(cell: Cell, steps: int) -> str:
    reason = reference_reason(cell.hidden, cell.cell_activation, steps)
    return kernels_in_use().name if reason is None else "reference"


def _cell_name(cell: Cell) -> str:
    name = next(_KERAS_NAMES[name] for name, kind in CELLS.items() if isinstance(cell, kind))
    unusual: list[str] = [cell.cell_activation] if cell.cell_activation != "tanh" else []
    if cell.gate_activation != "sigmoid":
        unusual.append(f"{cell.gate_activation.replace('_', ' ')} gates")
    return f"{name} ({', '.join(unusual)})" if unusual else name


def preview(framing: Framing, data: StudyData, seed: int) -> dict[str, Any]:
    """Returns the first rows as ids and as text, and a round trip of the text's beginning through the vocabulary.

    Where lanes carry their state, also that the first lane's rows follow one another: rows 0, 64 and 128 of 64 lanes.
    """
    vocabulary, lanes = data.vocabulary, framing.lanes
    updates = 3 * -(-_ROWS // lanes)
    block = framing.unshuffled(data.train, seed).block(0, updates, updates)
    rows = block.token_ids.reshape(-1, framing.length + 1)
    inputs = rows[:, :-1].copy()
    if vocabulary.start_id is not None:
        inputs[block.resets.reshape(inputs.shape)] = vocabulary.start_id  # what is read where a text begins
    targets = rows[:_ROWS, -1:] if framing.last_only else rows[:_ROWS, 1:]
    ids = vocabulary.encode(data.text[:_ROUND_TRIP])
    beginning = vocabulary.decode(ids)
    shown: dict[str, Any] = {
        "inputs": inputs[:_ROWS].tolist(),
        "targets": targets.tolist(),
        "texts": [vocabulary.decode(row) for row in inputs[:_ROWS]],
        "target_texts": [vocabulary.decode(row) for row in targets],
        "beginning": beginning,
        "beginning_ids": ids[:20].tolist(),
        "round_trip": bool((vocabulary.encode(beginning) == ids).all()),
    }
    if isinstance(framing, StatefulRows):
        shown["continuity"] = [{"row": row, "text": vocabulary.decode(inputs[row])} for row in (0, lanes, 2 * lanes)]
    return shown


def framing_facts(framing: Framing, stream: TokenStream) -> dict[str, Any]:
    """Returns how the data is cut, as JSON: what a diagram of it needs, and the numbers of rows and updates."""
    updates = framing.updates_an_epoch(stream)
    facts: dict[str, Any] = {
        "kind": type(framing).__name__,
        "lanes": framing.lanes,
        "length": framing.length,
        "targets": "last" if framing.last_only else "every",
        "updates_per_epoch": updates,
    }
    if isinstance(framing, ShuffledWindows):
        facts |= {"stride": framing.stride, "rows": len(framing.windows(stream, None).starts)}
    elif isinstance(framing, StatefulRows):
        a_lane = len(stream) // framing.lanes
        facts |= {
            "rows": updates * framing.lanes,
            "lane_length": a_lane,
            "dropped_tail": len(stream) - framing.lanes * a_lane,
        }
    elif isinstance(framing, PaddedPieces):
        facts |= {"rows": framing.pieces}
    elif isinstance(framing, ReadingLanes):
        facts |= {"random_offsets": framing.random_offsets}
    return facts
