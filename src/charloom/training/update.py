"""The compiled call: a block of updates with no Python between them."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int32, Key

from charloom.models import Carry, Network, cross_entropy, draw_dropout_masks, masked_sum

_ADAM_EPSILON = 1e-7


class TrainingState(NamedTuple):
    """What an update reads and writes; donated to each call."""

    network: Network
    optimizer: Any
    carry: Carry


def make_optimizer(clip_norm: float) -> optax.GradientTransformation:
    """Returns Adam behind a clip of the gradient's global norm; the rate is applied by `run_block`.

    Source: Kingma and Ba, 2015, with Keras's epsilon; clipping: Pascanu, Mikolov and Bengio, 2013.
    """
    return optax.chain(optax.clip_by_global_norm(clip_norm), optax.scale_by_adam(eps=_ADAM_EPSILON))


@partial(jax.jit, static_argnames=("dropout", "cold_starts", "clip_norm"), donate_argnames="state")
def run_block(
    state: TrainingState,
    token_ids: Int32[Array, "capacity lanes unroll_plus_1"],
    resets: Bool[Array, "capacity lanes unroll"],
    scored: Bool[Array, "capacity lanes unroll"],
    rates: Float[Array, " capacity"],
    updates: Int32[Array, ""],
    first_update: Int32[Array, ""],
    key: Key[Array, ""],
    *,
    dropout: float,
    cold_starts: float,
    clip_norm: float,
) -> tuple[TrainingState, Float[Array, " capacity"]]:
    """Returns the state after the block's updates and the mean nats per character of each.

    The count of updates is dynamic: a short block runs in the same program. An update's randomness
    is `fold_in(key, update)`, so that it does not depend on how updates are grouped into blocks.
    """
    optimizer = make_optimizer(clip_norm)
    lanes = token_ids.shape[1]

    def loss(network: Network, index: Int32[Array, ""], carry: Carry) -> tuple[Float[Array, ""], Carry]:
        ids = token_ids[index].T
        dropout_key, start_key = jax.random.split(jax.random.fold_in(key, first_update + index))
        masks = draw_dropout_masks(network, dropout, lanes, dropout_key)
        cold = jax.random.bernoulli(start_key, cold_starts, (lanes, 1))
        carry = jax.tree.map(lambda state: jnp.where(cold, 0, state), carry)
        logits, carry = network(ids[:-1], resets[index].T, carry, masks)
        nats = masked_sum(cross_entropy(logits, ids[1:]), scored[index].T)
        return nats / jnp.maximum(1, scored[index].sum()), carry

    def update(
        index: Int32[Array, ""], progress: tuple[TrainingState, Float[Array, " capacity"]]
    ) -> tuple[TrainingState, Float[Array, " capacity"]]:
        (network, optimizer_state, carry), losses = progress
        (nats, carry), gradient = jax.value_and_grad(loss, has_aux=True)(network, index, carry)
        direction, optimizer_state = optimizer.update(gradient, optimizer_state, network)
        network = jax.tree.map(lambda weight, step: weight - rates[index] * step, network, direction)
        return TrainingState(network, optimizer_state, carry), losses.at[index].set(nats)

    return lax.fori_loop(0, updates, update, (state, jnp.zeros(token_ids.shape[0])))
