"""The compiled training call: a block of steps without Python in between."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int32, Key

from charloom.kernels import compiled, own_settings
from charloom.models import Carry, Network, SequenceModel, Totals, draw_dropout_masks, sequence_totals
from charloom.settings import Precision

_BETA_1, _BETA_2 = 0.9, 0.999
_WEIGHT_DROPOUT_KEY = 2  # folded into a step's key, for weight dropout


class TrainingState(NamedTuple):
    """The state that a step reads and changes. It is donated to each call."""

    network: SequenceModel
    optimizer: Any
    carry: Carry


@dataclass(frozen=True, kw_only=True)
class StepRule:
    """How a step trains, except for its learning rate. A program is compiled for each rule.

    Attributes:
        dropout: share of each layer's outputs that is set to zero.
        state_reset_probability: probability that a row's state is reset to zero before the step.
        clip_norm: maximum global norm of the gradient; larger ones are scaled down. None for no limit.
        epsilon: Adam's epsilon, added as in Keras.
        nesterov: whether Adam uses Nesterov momentum.
        last_only: whether only the last position of the sequence is predicted.
        weight_dropout: share of the recurrent weights that a step sets to zero.
        weight_decay: decoupled weight decay of matrices, at a learning rate of 1; biases do not decay.
        precision: the precision of the factors of products. Weights, sums and the optimizer are always float32.
    """

    dropout: float = 0.0
    state_reset_probability: float = 0.0
    clip_norm: float | None = None
    epsilon: float = 1e-7
    nesterov: bool = False
    last_only: bool = False
    weight_dropout: float = 0.0
    weight_decay: float = 0.0
    precision: Precision = "float32"


def root_key(seed: int) -> Key[Array, ""]:
    """Returns the key for dropout and state resets. Each seed from 0 to 2**63 - 1 has a different key."""
    with own_settings():
        # A JAX key takes 32 bits of a seed; the upper bits are folded in.
        key = jax.random.key(seed & 0xFFFFFFFF, impl="threefry2x32")
        return jax.random.fold_in(key, seed >> 32) if seed >> 32 else key


def make_optimizer(rule: StepRule) -> optax.GradientTransformation:
    """Returns Adam after clipping of the gradient's global norm. `run_block` applies the learning rate.

    Source: Kingma and Ba, 2015; with Nesterov's momentum: Dozat, 2016; clipping: Pascanu, Mikolov and Bengio, 2013;
    decoupled weight decay: Loshchilov and Hutter, 2019.
    """
    parts = [] if rule.clip_norm is None else [optax.clip_by_global_norm(rule.clip_norm)]
    parts.append(_adam(rule.epsilon, rule.nesterov))
    if rule.weight_decay:
        parts.append(optax.add_decayed_weights(rule.weight_decay, _are_matrices))
    return parts[0] if len(parts) == 1 else optax.chain(*parts)


def _are_matrices(network: optax.Params) -> Any:
    return jax.tree.map(lambda weights: weights.ndim > 1, network)


def _adam(epsilon: float, nesterov: bool) -> optax.GradientTransformation:
    # Keras uses the form at the end of the paper's section 2, which adds epsilon before the bias correction of the
    # second moment; Optax adds it after. This form also needs one division per element instead of three or four.
    def update(
        gradient: optax.Updates, state: optax.ScaleByAdamState, network: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.ScaleByAdamState]:
        mean = optax.tree.update_moment(gradient, state.mu, _BETA_1, 1)
        square = optax.tree.update_moment_per_elem_norm(gradient, state.nu, _BETA_2, 2)
        count = state.count + 1
        scale = jnp.sqrt(1 - _BETA_2**count)
        if nesterov:
            of_mean, of_gradient = _BETA_1 / (1 - _BETA_1 ** (count + 1)), (1 - _BETA_1) / (1 - _BETA_1**count)
            moved = jax.tree.map(lambda m, g: scale * of_mean * m + scale * of_gradient * g, mean, gradient)
        else:
            moved = jax.tree.map(lambda m: scale / (1 - _BETA_1**count) * m, mean)
        direction = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + epsilon), moved, square)
        return direction, optax.ScaleByAdamState(count, mean, square)

    return optax.GradientTransformation(optax.scale_by_adam().init, update)


# One program, because compiling copies and zeros of each shape separately takes longer.
@partial(compiled, static_argnames=("batch_size", "rule"))
def initial_state(network: SequenceModel, batch_size: int, rule: StepRule) -> TrainingState:
    """Returns the state before the first step. Its weights are a copy, because the state is donated."""
    return TrainingState(
        jax.tree.map(jnp.copy, network), make_optimizer(rule).init(network), network.zero_carry(batch_size)
    )


def block_steps(
    state: TrainingState,
    token_ids: Int32[Array, "capacity batch sequence_plus_1"],
    resets: Bool[Array, "capacity batch sequence"],
    scored: Bool[Array, "capacity batch sequence"],
    state_resets: Bool[Array, "capacity batch"],
    rates: Float[Array, " capacity"],
    steps: Int32[Array, ""],
    first_step: Int32[Array, ""],
    key: Key[Array, ""],
    rule: StepRule,
) -> tuple[TrainingState, Totals]:
    """Returns the state after the block's steps, and the totals of each step from before it.

    The number of steps is dynamic, so a short block runs in the same program. A step's random numbers come from
    `fold_in(key, step)`, so they do not depend on how steps are grouped into blocks.
    """
    optimizer = make_optimizer(rule)
    capacity, batch_size = state_resets.shape

    def loss(
        network: SequenceModel, index: Int32[Array, ""], carry: Carry
    ) -> tuple[Float[Array, ""], tuple[Totals, Carry]]:
        ids = token_ids[index].T
        step_key = jax.random.fold_in(key, first_step + index)
        dropout_key, start_key = jax.random.split(step_key)
        masks = draw_dropout_masks(network, rule.dropout, batch_size, dropout_key)
        zeroed = state_resets[index]
        if rule.state_reset_probability:
            zeroed = zeroed | jax.random.bernoulli(start_key, rule.state_reset_probability, (batch_size,))
        carry = jax.tree.map(lambda state: jnp.where(zeroed[:, None], 0, state), carry)
        if rule.weight_dropout:
            assert isinstance(network, Network)  # only its settings can request weight dropout
            network = network.with_weight_dropout(
                rule.weight_dropout, jax.random.fold_in(step_key, _WEIGHT_DROPOUT_KEY)
            )
        if rule.precision != "float32":
            assert isinstance(network, Network)
            network = network.with_precision(rule.precision)
        logits, carry = network(ids[:-1], resets[index].T, carry, masks, last_only=rule.last_only)
        totals = sequence_totals(logits, ids, scored[index].T)
        return totals.nats / jnp.maximum(1, scored[index].sum()), (totals, carry)

    def step(index: Int32[Array, ""], progress: tuple[TrainingState, Totals]) -> tuple[TrainingState, Totals]:
        (network, optimizer_state, carry), totals = progress
        (_, (sequence, carry)), gradient = jax.value_and_grad(loss, has_aux=True)(network, index, carry)
        direction, optimizer_state = optimizer.update(gradient, optimizer_state, network)
        network = jax.tree.map(lambda weight, step: weight - rates[index] * step, network, direction)
        totals = jax.tree.map(lambda sums, of_sequence: sums.at[index].set(of_sequence), totals, sequence)
        return TrainingState(network, optimizer_state, carry), totals

    return lax.fori_loop(0, steps, step, (state, Totals(*(jnp.zeros(capacity, jnp.float32),) * 2)))


run_block = compiled(block_steps, static_argnames="rule", donate_argnames="state")
