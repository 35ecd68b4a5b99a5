"""The inputs of a layer, before its recurrent product."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from charloom.kernels.precision import product
from charloom.settings import Precision


class Features(NamedTuple):
    """Inputs that are multiplied by a kernel.

    Attributes:
        values: the inputs of a whole sequence, such as the outputs of the layer below.
        kernel: the input kernel.
        bias: added to the product.
    """

    values: Float[Array, "time batch features"]
    kernel: Float[Array, "features gates"]
    bias: Float[Array, " gates"]

    def projected(self, precision: Precision = "float32") -> Float[Array, "time batch gates"]:
        """Returns values · kernel + bias."""
        return product(self.values, self.kernel, precision) + self.bias

    @property
    def shape(self) -> tuple[int, ...]:
        """Steps and rows."""
        return self.values.shape[:2]


class Rows(NamedTuple):
    """Inputs that are looked up in a table of projected inputs.

    Attributes:
        ids: indices of the table's rows, in bounds.
        table: the projected input for each index, including the bias.
    """

    ids: Int32[Array, "time batch"]
    table: Float[Array, "rows gates"]

    def projected(self, precision: Precision = "float32") -> Float[Array, "time batch gates"]:
        """Returns the selected rows of the table, which is not a product of the layer and is never rounded."""
        return self.gathered() if jax.default_backend() == "cpu" else self.multiplied()

    def gathered(self) -> Float[Array, "time batch gates"]:
        """Returns the selected rows by indexing, which is fastest on a CPU."""
        # In the mode "clip", JAX does not add a check of the bounds.
        return jnp.take(self.table, self.ids, axis=0, mode="clip")

    def multiplied(self) -> Float[Array, "time batch gates"]:
        """Returns the selected rows by a matrix product. An accelerator computes its gradient deterministically."""
        return jax.nn.one_hot(self.ids, len(self.table), dtype=self.table.dtype) @ self.table

    @property
    def shape(self) -> tuple[int, ...]:
        """Steps and rows."""
        return self.ids.shape


# Inputs are projected inside the kernels: the projections of a sequence would be the largest array of a training step.
LayerInputs = Features | Rows
