"""A training loop with exchangeable parts. Only changes that improve the score within the same time go into charloom.

The network, kernels, batches and scoring are charloom's. Only the training step is a copy that has all candidates.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from charloom.data import ContiguousBatches, TokenStream, evaluation_pass, ordered_pass
from charloom.inference import score_blocks
from charloom.kernels import LSTMCarry, Rows
from charloom.models import Carry, Network, draw_dropout_masks, sequence_totals
from charloom.models.initializers import glorot_uniform, orthogonal
from charloom.models.network import Dense
from charloom.settings import NetworkSettings

_STEPS_A_CALL = 25
_CURVE_POINTS = 8


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """The settings of a trial: those of charloom, and those that it might get.

    Attributes:
        input_dropout: share of the first layer's inputs (rows of the projection table) dropped per sequence.
        recurrent_dropout: share of the units of each layer's state dropped from the recurrent product, for all rows.
        weight_dropout: share of the recurrent weights dropped per step (Merity, Keskar and Socher, 2018).
        skips: whether the head reads the outputs of every layer.
        schedule: learning-rate schedule. "linear" and "cosine" fall to zero after the warm-up, "late" only in the
            last part of the run.
        chrono: longest memory, in characters, that the initial forget and input biases are drawn for; 0 for a forget
            bias of one (Tallec and Ollivier, 2018).
        step_dropout: whether dropout masks differ from time step to time step.
        weight_decay: decoupled weight decay of matrices (Loshchilov and Hutter, 2019).
        optimizer: how a gradient becomes a step, before the learning rate.
        variant: variant of the cell; see `VariantNetwork`.
        averages: horizons of the moving averages of the weights, as shares of all steps.
    """

    hidden: int = 256
    layers: int = 1
    embedding: int = 64
    batch_size: int = 16
    sequence_length: int = 64
    dropout: float = 0.1
    learning_rate: float = 0.006
    warmup: float = 0.05
    schedule: Literal["cosine", "linear", "late"] = "cosine"
    clip_norm: float = 1.0
    beta_2: float = 0.999
    state_reset_probability: float = 0.01
    input_dropout: float = 0.0
    recurrent_dropout: float = 0.0
    weight_dropout: float = 0.0
    skips: bool = False
    chrono: int = 0
    step_dropout: bool = False
    weight_decay: float = 0.0
    optimizer: Literal["adam", "nadam", "adabelief", "lion"] = "adam"
    variant: str = ""
    averages: tuple[float, ...] = (0.01, 0.03, 0.1)
    seed: int = 0


class SkippingNetwork(Network):
    """A network whose head reads the outputs of every layer."""

    def __call__(
        self, token_ids: Any, resets: Any, carry: Carry, dropout_masks: Any = None, *, last_only: bool = False
    ) -> Any:
        inputs: Any = Rows(jnp.where(resets, self.start_row, token_ids), self.projection_table())
        outputs, last = [], []
        for layer, cell in enumerate(self.cells):
            hidden, cell_carry = cell.sequence(inputs, carry[layer], resets)
            if dropout_masks is not None:
                hidden = hidden * dropout_masks[layer]
            outputs.append(hidden)
            last.append(cell_carry)
            if layer + 1 < len(self.cells):
                inputs = self.cells[layer + 1].features(hidden)
        return self.head(jnp.concatenate(outputs, axis=-1)), tuple(last)


class VariantNetwork(Network):
    """A network with one LSTM layer whose cell is changed. It has no native kernel, so trials compare equal steps.

    Attributes:
        variant: "capped": the input gate is at most 1 - f (Melis, Dyer and Blunsom, 2018).
            "normed": each gate's sum, and the cell before the output, are normalized (Ba, Kiros and Hinton, 2016).
            "mogrifier": input and state gate each other five times before the step (Melis et al., 2020).
            "multiplicative": input and state are multiplied before the gates (Krause et al., 2017). Here the factor
            of the input starts near one, because the embedding is small.
            "minimal": only a forget gate, and the cell is the output (van der Westhuizen and Lasenby, 2018).
        extra: weights in addition to those of an LSTM.
    """

    extra: Any
    variant: str = eqx.field(static=True)

    def __call__(
        self, token_ids: Any, resets: Any, carry: Carry, dropout_masks: Any = None, *, last_only: bool = False
    ) -> Any:
        (cell,) = self.cells
        inputs = self.embedding[jnp.where(resets, self.start_row, token_ids)]

        def step(state: Any, of_step: Any) -> Any:
            value, reset = of_step
            hidden, memory = (jnp.where(reset[:, None], 0, part) for part in state)
            if self.variant == "mogrifier":
                for turn, kernel in enumerate(self.extra):
                    if turn % 2:
                        hidden = 2 * jax.nn.sigmoid(value @ kernel) * hidden
                    else:
                        value = 2 * jax.nn.sigmoid(hidden @ kernel) * value
            if self.variant == "multiplicative":
                of_value, of_hidden = self.extra
                hidden = (1 + value @ of_value) * (hidden @ of_hidden)
            sums = jnp.split(value @ cell.kernel + cell.bias + hidden @ cell.recurrent_kernel, 4, axis=-1)
            if self.variant == "normed":
                gains, shifts = self.extra
                sums = [_normed(part) * gain + shift for part, gain, shift in zip(sums, gains, shifts, strict=False)]
            entered, kept, output = (jax.nn.sigmoid(sums[at]) for at in (0, 1, 3))
            if self.variant == "capped":
                entered = jnp.minimum(entered, 1 - kept)
            if self.variant == "minimal":
                hidden = kept * memory + (1 - kept) * jnp.tanh(sums[2])
                return (hidden, hidden), hidden
            memory = kept * memory + entered * jnp.tanh(sums[2])
            seen = _normed(memory) * gains[4] + shifts[4] if self.variant == "normed" else memory
            hidden = output * jnp.tanh(seen)
            return (hidden, memory), hidden

        last, hidden = lax.scan(step, tuple(carry[0]), (inputs, resets))
        if dropout_masks is not None:
            hidden = hidden * dropout_masks[0]
        return self.head(hidden), (LSTMCarry(*last),)


def _normed(sums: Any) -> Any:
    return jax.nn.standardize(sums, axis=-1, epsilon=1e-5)


def _variant_of(network: Network, candidate: Candidate, rng: np.random.Generator) -> Network:
    extra: Any = ()
    units, width = candidate.hidden, candidate.embedding
    if candidate.variant == "normed":
        shifts = np.zeros((5, units), np.float32)
        shifts[1] = 1  # the forget gate's bias
        extra = jnp.ones((5, units)), jnp.asarray(shifts)
    if candidate.variant == "mogrifier":
        shapes = [(units, width), (width, units)] * 2 + [(units, width)]
        extra = tuple(jnp.asarray(rng.normal(0, 0.02, shape).astype(np.float32)) for shape in shapes)
    if candidate.variant == "multiplicative":
        extra = glorot_uniform(rng, (width, units)), orthogonal(rng, (units, units))
    fields_of = (network.embedding, network.cells, network.head, network.inputs, network.vocab_size, network.start_id)
    return VariantNetwork(*fields_of, extra, candidate.variant)


def first_network(candidate: Candidate, vocab_size: int, start_id: int | None) -> Network:
    """Returns the network with its initial weights."""
    settings = NetworkSettings(hidden=candidate.hidden, layers=candidate.layers, embedding=candidate.embedding)
    rng = np.random.default_rng(candidate.seed)
    network = Network.init(settings, vocab_size, start_id, rng)
    if candidate.chrono:
        network = replace(network, cells=tuple(_chrono(cell, candidate.chrono, rng) for cell in network.cells))
    if candidate.variant:
        return _variant_of(network, candidate, rng)
    if not candidate.skips:
        return network
    head = Dense.init(candidate.hidden * candidate.layers, vocab_size, rng)
    return SkippingNetwork(network.embedding, network.cells, head, network.inputs, network.vocab_size, network.start_id)


def _chrono(cell: Any, longest: int, rng: np.random.Generator) -> Any:
    forget = np.log(rng.uniform(1, longest - 1, cell.hidden)).astype(np.float32)
    zeros = np.zeros(2 * cell.hidden, np.float32)
    return replace(cell, bias=jnp.asarray(np.concatenate([-forget, forget, zeros])))


def learning_rates(candidate: Candidate, steps: int) -> np.ndarray:
    """Returns the learning rate of each step."""
    at = np.arange(steps) / steps
    warmup = candidate.warmup
    phase = np.clip((at - warmup) / (1 - warmup), 0, 1)
    falling = {
        "cosine": (1 + np.cos(np.pi * phase)) / 2,
        "linear": 1 - phase,
        "late": np.clip((1 - at) / 0.4, 0, 1),
    }[candidate.schedule]
    return (candidate.learning_rate * np.minimum(falling, (at + 1 / steps) / max(warmup, 1e-9))).astype(np.float32)


@partial(jax.jit, static_argnames=("candidate",), donate_argnames=("state",))
def _steps(
    state: Any,
    ids: Any,
    resets: Any,
    state_resets: Any,
    rates: Any,
    count: Any,
    first: Any,
    key: Any,
    candidate: Candidate,
) -> Any:
    optimizer = _optimizer(candidate)
    batch_size = candidate.batch_size

    def loss(network: Network, index: Any, carry: Carry) -> Any:
        keys = jax.random.split(jax.random.fold_in(key, first + index), 5)
        if candidate.step_dropout:
            shape = (candidate.sequence_length, batch_size, candidate.hidden)
            thresholds = (jax.random.bits(key, shape, jnp.uint8) for key in jax.random.split(keys[0], candidate.layers))
            kept = 1 - candidate.dropout
            masks = tuple(jnp.where(bits < round(256 * kept), 1 / kept, 0) for bits in thresholds)
        else:
            masks = draw_dropout_masks(network, candidate.dropout, batch_size, keys[0])
        zeroed = state_resets[index] | jax.random.bernoulli(keys[1], candidate.state_reset_probability, (batch_size,))
        carry = jax.tree.map(lambda state: jnp.where(zeroed[:, None], 0, state), carry)
        network = _thinned(network, candidate, keys[2:])
        tokens = ids[index].T
        logits, carry = network(tokens[:-1], resets[index].T, carry, masks)
        totals = sequence_totals(logits, tokens, jnp.ones_like(tokens[1:], bool))
        return totals.nats / tokens[1:].size, carry

    def step(index: Any, progress: Any) -> Any:
        (network, moments, carry), nats = progress
        (of_step, carry), gradient = jax.value_and_grad(loss, has_aux=True)(network, index, carry)
        step, moments = optimizer.update(gradient, moments, network)
        decay = candidate.weight_decay
        network = jax.tree.map(lambda w, d: w - rates[index] * (d + (decay * w if w.ndim > 1 else 0)), network, step)
        return (network, moments, carry), nats + of_step

    return lax.fori_loop(0, count, step, (state, jnp.float32(0)))


def _optimizer(candidate: Candidate) -> optax.GradientTransformation:
    moments: dict[str, Any] = {"b2": candidate.beta_2, "eps": 1e-7}
    steps = {
        "adam": lambda: optax.scale_by_adam(**moments),
        "nadam": lambda: optax.scale_by_adam(**moments, nesterov=True),
        "adabelief": lambda: optax.scale_by_belief(**moments),
        "lion": lambda: optax.scale_by_lion(b1=0.9, b2=0.99),
    }
    return optax.chain(optax.clip_by_global_norm(candidate.clip_norm), steps[candidate.optimizer]())


def _thinned(network: Network, candidate: Candidate, keys: Any) -> Network:
    cells = []
    for layer, cell in enumerate(network.cells):
        kernel = cell.recurrent_kernel
        if rate := candidate.weight_dropout:
            bits = jax.random.bits(jax.random.fold_in(keys[0], layer), kernel.shape, jnp.uint8)
            kernel = kernel * jnp.where(bits >= round(256 * rate), 1 / (1 - rate), 0)
        if rate := candidate.recurrent_dropout:
            kept = jax.random.bernoulli(jax.random.fold_in(keys[1], layer), 1 - rate, (len(kernel), 1))
            kernel = kernel * kept / (1 - rate)
        cells.append(replace(cell, recurrent_kernel=kernel))
    embedding = network.embedding
    if rate := candidate.input_dropout:
        embedding = embedding * jax.random.bernoulli(keys[2], 1 - rate, (len(embedding), 1)) / (1 - rate)
    return replace(network, cells=tuple(cells), embedding=embedding)


@partial(jax.jit, donate_argnames=("averages",))
def _averaged(averages: Any, network: Network, kept: Any) -> Any:
    return jax.tree.map(lambda average, weight: average + (1 - kept) * (weight - average), averages, network)


class Training:
    """The training of a candidate on one text."""

    def __init__(self, candidate: Candidate, train: TokenStream, vocab_size: int, start_id: int | None):
        network = first_network(candidate, vocab_size, start_id)
        self.candidate = candidate
        self._batches = ContiguousBatches(train, candidate.batch_size, candidate.sequence_length)
        self._state = jax.tree.map(
            jnp.copy, (network, _optimizer(candidate).init(network), network.zero_carry(candidate.batch_size))
        )
        self._averages = [jax.tree.map(jnp.copy, network) for _ in candidate.averages]

    def run(self, steps: int) -> Iterator[tuple[int, float]]:
        """Trains for `steps`; yields the steps done and the mean loss after each compiled call."""
        rates = learning_rates(self.candidate, steps)
        key = jax.random.key(self.candidate.seed)
        for first in range(0, steps, _STEPS_A_CALL):
            count = min(_STEPS_A_CALL, steps - first)
            block = self._batches.block(first, count, _STEPS_A_CALL)
            padded = np.zeros(_STEPS_A_CALL, np.float32)
            padded[:count] = rates[first : first + count]
            arrays = block.token_ids, block.resets, block.state_resets
            self._state, nats = _steps(self._state, *arrays, padded, count, first, key, self.candidate)
            for index, horizon in enumerate(self.candidate.averages):
                # Average over all steps so far until the horizon is full.
                window = max(1.0, min(horizon * steps, first + count) / count)
                self._averages[index] = _averaged(self._averages[index], self._state[0], 1 - 1 / window)
            yield first + count, float(nats) / count

    @property
    def networks(self) -> dict[str, Network]:
        """The last weights, and the averages by horizon."""
        names = [f"average {horizon:g}" for horizon in self.candidate.averages]
        return {"last": self._state[0]} | dict(zip(names, self._averages, strict=True))


def result_of(
    candidate: Candidate,
    steps: int,
    train: TokenStream,
    validation: TokenStream,
    vocab_size: int,
    start_id: int | None,
) -> dict[str, Any]:
    """Returns the result of a training as JSON values, with nats per character of the validation part."""
    training = Training(candidate, train, vocab_size, start_id)
    begin, curve, sums = time.perf_counter(), [], []
    seconds = 0.0
    points = [round(steps * point / _CURVE_POINTS) for point in range(1, _CURVE_POINTS)]
    for done, nats in training.run(steps):
        sums.append(nats)
        if points and done >= points[0]:
            points.pop(0)
            seconds += time.perf_counter() - begin
            networks = training.networks
            scores = [
                score_blocks(networks[name], evaluation_pass(validation)).nats_per_char
                for name in ("last", *list(networks)[-1:])
            ]
            curve.append([done, round(float(np.mean(sums)), 4), *(round(score, 4) for score in scores)])
            sums, begin = [], time.perf_counter()
    seconds += time.perf_counter() - begin
    nats = {
        name: score_blocks(network, ordered_pass(validation)).nats_per_char
        for name, network in training.networks.items()
    }
    best = training.networks[min(nats, key=nats.__getitem__)]
    tempered = {
        t: score_blocks(_sharpened(best, t), ordered_pass(validation)).nats_per_char for t in (0.9, 1.05, 1.1, 1.2)
    }
    return {
        "steps": steps,
        "epochs": round(steps * candidate.batch_size * candidate.sequence_length / len(train), 2),
        "parameters": best.parameters,
        "train_nats": round(float(np.mean(sums[-20:])), 4),
        "nats": {name: round(value, 4) for name, value in nats.items()},
        "tempered": {str(t): round(value, 4) for t, value in tempered.items()},
        "curve": curve,
        "chars_per_second": round(steps * candidate.batch_size * candidate.sequence_length / seconds),
    }


def _sharpened(network: Network, temperature: float) -> Network:
    head = network.head
    assert isinstance(head, Dense)  # true for every candidate
    return replace(network, head=replace(head, kernel=head.kernel / temperature, bias=head.bias / temperature))
