"""The first layer's projected inputs, with the same bits on all processors."""

import numpy as np
from jaxtyping import Float32

from charloom.models import Network


def exact_projection_table(network: Network) -> Float32[np.ndarray, "rows gates"]:
    """Returns `network.projection_table()`, computed in a fixed order.

    Each step multiplies and adds in double precision, as IEEE 754 defines. The order of a library's matrix product
    depends on the processor.
    """
    cell = network.cells[0]
    kernel, bias = (np.asarray(weights, np.float64) for weights in (cell.kernel, cell.bias))
    if network.embedding is not None:
        table = _product(np.asarray(network.embedding, np.float64), kernel) + bias
    elif network.inputs == "scalar":
        scalars = np.arange(network.vocab_size, dtype=np.float32) / np.float32(network.vocab_size)
        table = _product(scalars[:, None].astype(np.float64), kernel) + bias
    else:
        table = kernel + bias
    if network.start_id is None:
        table = np.concatenate([table, bias[None]])
    return table.astype(np.float32)


def _product(rows: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    sums = np.zeros((len(rows), kernel.shape[1]))
    for column, weights in zip(rows.T, kernel, strict=True):
        sums += column[:, None] * weights
    return sums
