"""The models of the tutorials, which build a recurrent network step by step.

Read from the top. The first model sends three characters through shared layers, written out one by one. The second
does the same in a loop, for any number of characters. The third is a recurrent layer, which carries its state from one
call to the next. All have the interface of `charloom.models.Network`, so that the same code trains them.
"""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32

from charloom.models import Carry, Dense, DropoutMasks, SequenceModel, glorot_uniform, orthogonal, uniform, zeros

_EMBEDDING = 42
_HIDDEN = 256


class SharedLayers(SequenceModel):
    """What the first two models share: they carry no state, and predict only after the last character.

    Attributes:
        embedding: one row per character.
        read: layer from a character's embedding to hidden units, shared by all characters.
        mix: layer from hidden units to hidden units, shared by all characters.
        head: layer from hidden units to logits.
    """

    embedding: Float[Array, "vocab embed"]
    read: Dense
    mix: Dense
    head: Dense

    @classmethod
    def init(cls, vocab_size: int, classes: int, rng: np.random.Generator | None) -> "SharedLayers":
        """Returns a model with initial weights drawn as Keras does."""
        return cls(
            embedding=uniform(rng, (vocab_size, _EMBEDDING), 0.05),
            read=Dense.init(_EMBEDDING, _HIDDEN, rng),
            mix=Dense.init(_HIDDEN, _HIDDEN, rng),
            head=Dense.init(_HIDDEN, classes, rng),
        )

    def characters(self, token_ids: Int32[Array, "time batch"]) -> Float[Array, "time batch hidden"]:
        """Returns relu(read(embedding)) of each character.

        They are computed once for every character of the vocabulary, and then looked up.
        """
        return jnp.take(jax.nn.relu(self.read(self.embedding)), token_ids, axis=0, mode="clip")

    def __call__(
        self,
        token_ids: Int32[Array, "time batch"],
        resets: Bool[Array, "time batch"],
        carry: Carry,
        dropout_masks: DropoutMasks = None,
        *,
        last_only: bool = True,
    ) -> tuple[Float[Array, "1 batch classes"], Carry]:
        """Returns the logits after the last character. A model without state ignores the other arguments."""
        del resets, dropout_masks, last_only
        return self.head(self.hidden_after(self.characters(token_ids)))[None], carry

    @abstractmethod
    def hidden_after(self, characters: Float[Array, "time batch hidden"]) -> Float[Array, "batch hidden"]:
        """Returns the hidden units after the last character."""

    def zero_carry(self, batch_size: int) -> Carry:
        """Returns an empty carry, because there is no state."""
        del batch_size
        return ()

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        """Empty, because the tutorial does not use dropout."""
        return ()


class ThreeCharacters(SharedLayers):
    """First step: three characters, one after another, through the same two layers."""

    def hidden_after(self, characters: Float[Array, "3 batch hidden"]) -> Float[Array, "batch hidden"]:
        first, second, third = characters
        hidden = jnp.tanh(self.mix(first))
        hidden = jnp.tanh(self.mix(hidden + second))
        return jnp.tanh(self.mix(hidden + third))


class CharacterLoop(SharedLayers):
    """Second step: a loop that does the same for any number of characters."""

    def hidden_after(self, characters: Float[Array, "time batch hidden"]) -> Float[Array, "batch hidden"]:
        first, *others = characters
        hidden = jnp.tanh(self.mix(first))
        for character in others:
            hidden = jnp.tanh(self.mix(hidden + character))
        return hidden


class RecurrentLayer(eqx.Module):
    """Third step: the loop becomes a layer, and the hidden units become its state.

    The loop used one kernel for the sum of state and character. The layer has one kernel for the character and another
    for the state, and adds the two products. `charloom.models.Network` with an Elman cell computes the same from the
    same weights, only faster. The experiments with recurrent layers train that network. The tutorial's last step
    replaces the cell by an LSTM.

    Attributes:
        embedding: one row per character.
        kernel: kernel from a character's embedding to hidden units.
        recurrent_kernel: kernel from the state to hidden units.
        bias: bias of the hidden units.
        head: layer from hidden units to logits.
    """

    embedding: Float[Array, "vocab embed"]
    kernel: Float[Array, "embed hidden"]
    recurrent_kernel: Float[Array, "hidden hidden"]
    bias: Float[Array, " hidden"]
    head: Dense

    @classmethod
    def init(cls, vocab_size: int, rng: np.random.Generator | None) -> "RecurrentLayer":
        """Returns a model with initial weights drawn as Keras does."""
        return cls(
            embedding=uniform(rng, (vocab_size, _EMBEDDING), 0.05),
            kernel=glorot_uniform(rng, (_EMBEDDING, _HIDDEN)),
            recurrent_kernel=orthogonal(rng, (_HIDDEN, _HIDDEN)),
            bias=zeros(_HIDDEN),
            head=Dense.init(_HIDDEN, vocab_size, rng),
        )

    def __call__(
        self, token_ids: Int32[Array, "time batch"], state: Float[Array, "batch hidden"]
    ) -> tuple[Float[Array, "time batch vocab"], Float[Array, "batch hidden"]]:
        """Returns the logits after each character, and the state after the last."""
        logits = []
        for character in self.embedding[token_ids]:
            state = jnp.tanh(character @ self.kernel + state @ self.recurrent_kernel + self.bias)
            logits.append(self.head(state))
        return jnp.stack(logits), state
