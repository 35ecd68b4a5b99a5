"""What a layer reads at each step, before its recurrent product."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32


class Features(NamedTuple):
    """Inputs that a kernel projects.

    Attributes:
        values: of a whole sequence, such as the outputs of the layer below.
        kernel: of the input product.
        bias: added to it.
    """

    values: Float[Array, "time batch features"]
    kernel: Float[Array, "features gates"]
    bias: Float[Array, " gates"]

    def projected(self) -> Float[Array, "time batch gates"]:
        """Returns the inputs after the kernel and the bias."""
        return self.values @ self.kernel + self.bias

    @property
    def shape(self) -> tuple[int, ...]:
        """Steps and rows."""
        return self.values.shape[:2]


class Rows(NamedTuple):
    """Inputs that are chosen from a table of projected ones.

    Attributes:
        ids: of the table's rows, in bounds.
        table: what each choice comes to after the kernel and the bias.
    """

    ids: Int32[Array, "time batch"]
    table: Float[Array, "rows gates"]

    def projected(self) -> Float[Array, "time batch gates"]:
        """Returns the chosen rows."""
        return self.taken() if jax.default_backend() == "cpu" else self.multiplied()

    def taken(self) -> Float[Array, "time batch gates"]:
        """Returns the chosen rows by their ids, which is fastest on a CPU."""
        # Clipping is the mode that costs nothing to check.
        return jnp.take(self.table, self.ids, axis=0, mode="clip")

    def multiplied(self) -> Float[Array, "time batch gates"]:
        """Returns the chosen rows by a product, whose gradient an accelerator sums in the same order each time."""
        return jax.nn.one_hot(self.ids, len(self.table), dtype=self.table.dtype) @ self.table

    @property
    def shape(self) -> tuple[int, ...]:
        """Steps and rows."""
        return self.ids.shape


# Still to be projected: the projections of a sequence would be the largest array of an update.
LayerInputs = Features | Rows
