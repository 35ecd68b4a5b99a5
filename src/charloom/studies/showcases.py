"""What a study shows of a trained model: predictions and generated texts, each declared as data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int32

from charloom.kernels import compiled
from charloom.model import TextModel
from charloom.models import Carry, Network, SequenceModel
from charloom.settings import NetworkSettings
from charloom.studies.batching import PaddedPieces, ShuffledWindows
from charloom.studies.experiment import Experiment
from charloom.text import Vocabulary
from charloom.training import TrainingState

Sample = dict[str, Any]
"""`kind` ("prediction", "piece", "temperature" or "text"), `title`, `prompt`, `text`; optional `published`, `note`."""


@dataclass(frozen=True)
class Trained:
    """A trained model, and what it was trained with.

    Attributes:
        model: the trained network.
        vocabulary: the characters that token ids stand for.
        experiment: the experiment as it ran.
        published: its published figures.
        trained_on: name, SHA-256 and length of the text.
        seed: random seed of the run.
        carry: the state after training, one per row of the batch; None if each window is a separate text.
        kept: the best checkpoints by some figure, by name.
    """

    model: SequenceModel
    vocabulary: Vocabulary
    experiment: Experiment
    published: Mapping[str, Any] = field(default_factory=dict)
    trained_on: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    carry: Carry | None = None
    kept: Sequence[tuple[str, TrainingState]] = ()

    @property
    def text_model(self) -> TextModel:
        """The model as users get it."""
        return self._held(self.model)

    def kept_model(self, checkpoint: str | None) -> TextModel | None:
        """The model of a checkpoint in `kept`, or the last one for None; None if the checkpoint is missing."""
        if checkpoint is None:
            return self.text_model
        return next((self._held(state.network) for name, state in self.kept if name == checkpoint), None)

    def _held(self, network: SequenceModel) -> TextModel:
        assert isinstance(network, Network)
        assert isinstance(self.experiment.model, NetworkSettings)
        batching = self.experiment.batching
        return TextModel(
            network=network,
            vocabulary=self.vocabulary,
            settings=self.experiment.model,
            text=self.experiment.text.settings,
            trained_on=self.trained_on,
            training={"window": batching.length} if isinstance(batching, ShuffledWindows) else {},
        )


class Showcase(Protocol):
    """One thing to show of a trained model."""

    def __call__(self, trained: Trained) -> list[Sample]:
        """Returns the samples."""
        ...


@dataclass(frozen=True)
class Predictions:
    """The most likely next character after each prompt, starting from a zero state."""

    prompts: Sequence[str]

    def __call__(self, trained: Trained) -> list[Sample]:
        published = trained.published.get("predictions", {})
        return [
            {
                "kind": "prediction",
                "title": "prediction",
                "prompt": prompt,
                "text": trained.vocabulary.decode([_most_likely(trained, prompt)]),
                "published": published.get(prompt),
            }
            for prompt in self.prompts
        ]


@dataclass(frozen=True)
class Greedy:
    """The text that follows a prompt if the most likely character is always chosen.

    `checkpoint` names the checkpoint that generates; None is the last one.
    """

    prompt: str
    length: int
    published: bool = True
    checkpoint: str | None = None

    def __call__(self, trained: Trained) -> list[Sample]:
        model = trained.kept_model(self.checkpoint)
        if model is None:
            return []
        way = f"windows of {model.window}" if model.window else "reads the prompt once, then carries its state"
        return [
            {
                "kind": "text",
                "title": f"greedy, {way}{_whose(self.checkpoint)}",
                "prompt": self.prompt,
                "text": model.generate(self.prompt, self.length, temperature=0),
                "published": trained.published.get("greedy") if self.published else None,
            }
        ]


@dataclass(frozen=True)
class SlidingOnCarriedState:
    """The stateful tutorial's way: it reads the last `window` characters each time and never resets the state."""

    prompt: str
    length: int
    window: int

    def __call__(self, trained: Trained) -> list[Sample]:
        network = trained.model
        assert isinstance(network, Network)
        prompt = jnp.asarray(trained.vocabulary.encode(self.prompt)[-self.window :], jnp.int32)
        generated = _slide(network, prompt, self.length)
        return [
            {
                "kind": "text",
                "title": f"greedy, reads the last {self.window} characters for each new one and never resets the state",
                "prompt": self.prompt,
                "text": self.prompt + trained.vocabulary.decode(np.asarray(generated)),
                "published": trained.published.get("greedy"),
                "note": "This is how the tutorial generates. The model reads each character as many times as the "
                "window is long, and its state remembers every time.",
            }
        ]


@dataclass(frozen=True)
class Temperatures:
    """Samples for the same prompt at rising temperatures; `checkpoint` as in `Greedy`."""

    prompt: str
    length: int
    temperatures: Sequence[float] = (0.2, 0.5, 0.8, 1.0, 1.2)
    checkpoint: str | None = None

    def __call__(self, trained: Trained) -> list[Sample]:
        model = trained.kept_model(self.checkpoint)
        if model is None:
            return []
        return [
            {
                "kind": "temperature",
                "title": f"temperature {temperature:g}{_whose(self.checkpoint)}",
                "prompt": self.prompt,
                "text": model.generate(self.prompt, self.length, temperature=temperature, seed=trained.seed),
                "temperature": temperature,
                "published": trained.published.get("sample") if temperature == 1 else None,
            }
            for temperature in self.temperatures
        ]


@dataclass(frozen=True)
class Walk:
    """Greedy letters from a first one, each fed back as the next input, starting from a zero state."""

    start: str
    length: int
    title: str

    def __call__(self, trained: Trained) -> list[Sample]:
        network = trained.model
        assert isinstance(network, Network)
        first = jnp.asarray(trained.vocabulary.encode(self.start), jnp.int32)
        letters = trained.vocabulary.decode(np.asarray(_walk(network, first[0], self.length)))
        wanted = "".join(chr(ord(self.start) + 1 + index) for index in range(self.length))
        return [
            {"kind": "text", "title": self.title, "prompt": self.start, "text": letters, "right": letters == wanted}
        ]


@dataclass(frozen=True)
class RandomPieces:
    """The model's predictions for newly drawn random pieces."""

    count: int

    def __call__(self, trained: Trained) -> list[Sample]:
        batching = trained.experiment.batching
        assert isinstance(batching, PaddedPieces)
        letters = trained.vocabulary.encode(trained.experiment.text.source)
        draw = np.random.default_rng([trained.seed, 1])
        samples = []
        for _ in range(self.count):
            piece = batching.draw(letters, draw)
            padded = np.concatenate([np.zeros(batching.length - len(piece) + 1, int), piece[:-1]])
            answer = int(_logits_after(trained.model, jnp.asarray(padded, jnp.int32)).argmax())
            samples.append(
                {
                    "kind": "piece",
                    "title": "random piece",
                    "prompt": trained.vocabulary.decode(piece[:-1]),
                    "text": trained.vocabulary.decode([answer]),
                    "right": answer == int(piece[-1]),
                }
            )
        return samples


@dataclass(frozen=True)
class SpaceProbabilities:
    """Greedy text after a prompt and a first letter, with the probability of a space at each position.

    It starts from a zero state, and from the state of the first row after training, as the published code does.
    """

    prime: str
    first: str
    length: int

    def __call__(self, trained: Trained) -> list[Sample]:
        assert isinstance(trained.model, Network)
        zeros = trained.model.zero_carry(1)
        samples = [self._sample("from a zero state", trained.model, zeros, trained)]
        if trained.carry is not None:
            samples.append(self._sample("from training's state", trained.model, _first_row(trained.carry), trained))
        for name, state in trained.kept:
            title = f"checkpoint {name}, from its training's state"
            samples.append(self._sample(title, state.network, _first_row(state.carry), trained))
        return samples

    def _sample(self, title: str, model: SequenceModel, carry: Carry, trained: Trained) -> Sample:
        assert isinstance(model, Network)
        ids = jnp.asarray(trained.vocabulary.encode(self.prime + self.first), jnp.int32)
        space = jnp.asarray(trained.vocabulary.encode(" "), jnp.int32)[0]
        generated, spaces = _prime_and_walk(model, ids, carry, space, self.length)
        return {
            "kind": "text",
            "title": f"greedy, {title}",
            "prompt": self.first,
            "text": self.first + trained.vocabulary.decode(np.asarray(generated)),
            "published": f"{trained.published['greedy']!r}, then spaces" if "greedy" in trained.published else None,
            "space_probabilities": [round(float(chance), 4) for chance in spaces],
        }


def _whose(checkpoint: str | None) -> str:
    return "" if checkpoint is None else f", checkpoint {checkpoint}"


def _first_row(carry: Carry) -> Carry:
    first: Carry = jax.tree.map(lambda state: state[:1], carry)
    return first


def _most_likely(trained: Trained, prompt: str) -> int:
    ids = jnp.asarray(trained.vocabulary.encode(prompt), jnp.int32)
    return int(_logits_after(trained.model, ids).argmax())


@compiled
def _logits_after(model: SequenceModel, ids: Int32[Array, " time"]) -> Float[Array, " classes"]:
    resets = jnp.zeros((len(ids), 1), bool)
    logits, _ = model(ids[:, None], resets, model.zero_carry(1), last_only=True)
    return logits[0, 0]


@partial(compiled, static_argnames="length")
def _slide(network: Network, window: Int32[Array, " window"], length: int) -> Int32[Array, " length"]:
    def step(state: Any, _: None) -> tuple[Any, Int32[Array, ""]]:
        window, carry = state
        logits, carry = network(window[:, None], jnp.zeros((len(window), 1), bool), carry, last_only=True)
        chosen = jnp.argmax(logits[0, 0]).astype(jnp.int32)
        return (jnp.concatenate([window[1:], chosen[None]]), carry), chosen

    _, generated = lax.scan(step, (window, network.zero_carry(1)), None, length)
    return generated


@partial(compiled, static_argnames="length")
def _walk(network: Network, first: Int32[Array, ""], length: int) -> Int32[Array, " length"]:
    return _continued(network, first, network.zero_carry(1), first, length)[0]


@partial(compiled, static_argnames="length")
def _prime_and_walk(
    network: Network, ids: Int32[Array, " time"], carry: Carry, space: Int32[Array, ""], length: int
) -> tuple[Int32[Array, " length"], Float[Array, " length"]]:
    prime = ids[:-1, None]
    _, carry = network(prime, jnp.zeros(prime.shape, bool), carry, last_only=True)
    return _continued(network, ids[-1], carry, space, length)


def _continued(
    network: Network, first: Int32[Array, ""], carry: Carry, watched: Int32[Array, ""], length: int
) -> tuple[Int32[Array, " length"], Float[Array, " length"]]:
    """Returns the greedy tokens after `first`, and at each position the probability of the token `watched`."""
    table = network.projection_table()

    def step(state: Any, _: None) -> tuple[Any, Any]:
        row, carry = state
        logits, carry = network.step(table, row[None], carry)
        chosen = jnp.argmax(logits[0]).astype(jnp.int32)
        return (chosen, carry), (chosen, jax.nn.softmax(logits[0])[watched])

    _, generated = lax.scan(step, (first, carry), None, length)
    tokens: Int32[Array, " length"] = generated[0]
    return tokens, generated[1]
