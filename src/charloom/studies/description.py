"""What a report shows of an experiment's layers and data, in the form that the tutorials use."""

from typing import Any

import jax

from charloom.data import TokenStream
from charloom.kernels import kernels_in_use, reference_reason
from charloom.models import Cell, Dense, Network, SequenceModel
from charloom.studies.batching import Batching, ContiguousStreams, PaddedPieces, ShuffledWindows, StatefulRows
from charloom.studies.study_data import StudyData
from charloom.studies.tutorial_models import SharedLayers

_ROWS = 8
_ROUND_TRIP = 100


def layer_table(model: SequenceModel, batching: Batching) -> list[dict[str, Any]]:
    """Returns one row per layer: name, output shape of a step, number of parameters, kernels."""
    every = [batching.batch_size, batching.length]
    last = every[:1] if batching.last_only else every
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
            {"embedding": "embedding", "one-hot": "one-hot, as indices", "scalar": "one number per letter"}[
                model.inputs
            ],
            [*every, width],
            model.embedding,
        )
    ]
    for layer, cell in enumerate(model.cells):
        shape = last if layer + 1 == len(model.cells) else every
        rows.append(_row(_cell_name(cell), [*shape, cell.hidden], cell) | {"kernels": _kernels(cell, batching.length)})
    if isinstance(model.head, Dense):
        rows.append(_row("dense, logits", [*last, model.vocab_size], model.head))
    return rows


def _row(name: str, shape: list[int], layer: Any) -> dict[str, Any]:
    parameters = sum(array.size for array in jax.tree.leaves(layer))
    return {"name": name, "output_shape": shape, "parameters": parameters, "kernels": None}


def _kernels(cell: Cell, steps: int) -> str:
    reason = reference_reason(cell.facts.name, cell.hidden, cell.cell_activation, steps)
    return kernels_in_use().name if reason is None else "reference"


def _cell_name(cell: Cell) -> str:
    name = cell.facts.keras_name or cell.facts.label
    unusual: list[str] = [cell.cell_activation] if cell.cell_activation != "tanh" else []
    if cell.gate_activation != "sigmoid":
        unusual.append(f"{cell.gate_activation.replace('_', ' ')} gates")
    return f"{name} ({', '.join(unusual)})" if unusual else name


def preview(batching: Batching, data: StudyData, seed: int) -> dict[str, Any]:
    """Returns the first windows as ids and as text, and whether the vocabulary encodes and decodes without loss.

    If rows carry their state, it also shows that windows of the first row follow each other in the text. With a batch
    size of 64, these are windows 0, 64 and 128.
    """
    vocabulary, batch_size = data.vocabulary, batching.batch_size
    steps = 3 * -(-_ROWS // batch_size)
    block = batching.unshuffled(data.train, seed).block(0, steps, steps)
    rows = block.token_ids.reshape(-1, batching.length + 1)
    inputs = rows[:, :-1].copy()
    if vocabulary.start_id is not None:
        inputs[block.resets.reshape(inputs.shape)] = vocabulary.start_id  # what the model reads at the start of a text
    targets = rows[:_ROWS, -1:] if batching.last_only else rows[:_ROWS, 1:]
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
    if isinstance(batching, StatefulRows):
        shown["continuity"] = [
            {"row": row, "text": vocabulary.decode(inputs[row])} for row in (0, batch_size, 2 * batch_size)
        ]
    return shown


def batching_summary(batching: Batching, stream: TokenStream) -> dict[str, Any]:
    """Returns JSON values on how the text is cut: what a diagram needs, and the numbers of rows and steps."""
    steps = batching.steps_per_epoch(stream)
    shown: dict[str, Any] = {
        "kind": type(batching).__name__,
        "batch_size": batching.batch_size,
        "length": batching.length,
        "targets": "last" if batching.last_only else "every",
        "steps_per_epoch": steps,
    }
    if isinstance(batching, ShuffledWindows):
        shown |= {"stride": batching.stride, "rows": len(batching.windows(stream, None).starts)}
    elif isinstance(batching, StatefulRows):
        row_length = len(stream) // batching.batch_size
        shown |= {
            "rows": steps * batching.batch_size,
            "row_length": row_length,
            "dropped_tail": len(stream) - batching.batch_size * row_length,
        }
    elif isinstance(batching, PaddedPieces):
        shown |= {"rows": batching.pieces}
    elif isinstance(batching, ContiguousStreams):
        shown |= {"random_offsets": batching.random_offsets}
    return shown
