"""A hypothesis about the published losses of the stateful rungs: the Keras of the day trained on an overwritten state.

A stateful layer kept its state in a variable that each batch assigned anew. Were the assignment to come
before back-propagation reads the state that the batch began with, the recurrent kernel's gradient at the first step
would be made with the state that the batch ended with. `overwrite` emulates that.
"""

import dataclasses

from jax import lax
from jaxtyping import Array, Bool, Float

from charloom.models import ElmanCell, Network


class OverwrittenElmanCell(ElmanCell):
    """An Elman cell whose recurrent kernel's gradient takes the last state of an unroll for its first."""

    def sequence(
        self,
        projected: Float[Array, "time lanes gates"],
        carry: Float[Array, "lanes hidden"],
        resets: Bool[Array, "time lanes"],
    ) -> tuple[Float[Array, "time lanes hidden"], Float[Array, "lanes hidden"]]:
        _, last = super().sequence(projected, carry, resets)
        kernel = self.recurrent_kernel
        # Zero in value; its gradient is the difference between the two products.
        mistake = lax.stop_gradient(last - carry) @ (kernel - lax.stop_gradient(kernel))
        return super().sequence(projected.at[0].add(mistake), carry, resets)


def overwrite(network: Network) -> Network:
    """Returns `network`, whose cells are Elman's, with the mistake in their gradient."""
    cells = tuple(OverwrittenElmanCell(**vars(cell)) for cell in network.cells)
    return dataclasses.replace(network, cells=cells)
