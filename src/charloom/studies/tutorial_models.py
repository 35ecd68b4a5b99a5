"""The tutorials' own models: a recurrent network being assembled, one model a step.

Read from the top: three characters through shared layers, written out; any number of characters, the same as a
loop; and a recurrent layer, which carries what it has read from one call to the next. Each takes and gives what
`charloom.models.Network` does, so that the same training code trains them all.
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
    """What the first two of them share: they carry nothing, and only the last character predicts.

    Attributes:
        embedding: a row for each character.
        read: from a character's embedding to hidden units; the same for every character.
        mix: from hidden units to hidden units; the same after every character.
        head: from hidden units to logits.
    """

    embedding: Float[Array, "vocab embed"]
    read: Dense
    mix: Dense
    head: Dense

    @classmethod
    def init(cls, vocab_size: int, classes: int, rng: np.random.Generator | None) -> "SharedLayers":
        """Returns a model with fresh weights, as Keras initializes them."""
        return cls(
            embedding=uniform(rng, (vocab_size, _EMBEDDING), 0.05),
            read=Dense.init(_EMBEDDING, _HIDDEN, rng),
            mix=Dense.init(_HIDDEN, _HIDDEN, rng),
            head=Dense.init(_HIDDEN, classes, rng),
        )

    def characters(self, token_ids: Int32[Array, "time batch"]) -> Float[Array, "time batch hidden"]:
        """Returns relu(read(embedding)) of each character.

        Computed once for each of the vocabulary's, and then looked up.
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
        """Returns the logits after the last character; a model without state has no use for the rest."""
        del resets, dropout_masks, last_only
        return self.head(self.hidden_after(self.characters(token_ids)))[None], carry

    @abstractmethod
    def hidden_after(self, characters: Float[Array, "time batch hidden"]) -> Float[Array, "batch hidden"]:
        """Returns the hidden units after the last of the characters that were read."""

    def zero_carry(self, batch_size: int) -> Carry:
        """Returns nothing: there is no state."""
        del batch_size
        return ()

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        """None: the tutorial drops nothing out."""
        return ()


class ThreeCharacters(SharedLayers):
    """The first step: three characters, one after another, through the same two layers."""

    def hidden_after(self, characters: Float[Array, "3 batch hidden"]) -> Float[Array, "batch hidden"]:
        first, second, third = characters
        hidden = jnp.tanh(self.mix(first))
        hidden = jnp.tanh(self.mix(hidden + second))
        return jnp.tanh(self.mix(hidden + third))


class CharacterLoop(SharedLayers):
    """The second step: the same for any number of characters, as a loop."""

    def hidden_after(self, characters: Float[Array, "time batch hidden"]) -> Float[Array, "batch hidden"]:
        first, *others = characters
        hidden = jnp.tanh(self.mix(first))
        for character in others:
            hidden = jnp.tanh(self.mix(hidden + character))
        return hidden


class RecurrentLayer(eqx.Module):
    """The third step: the loop is a layer, and what it has read so far is its state.

    The layer adds two products where the loop mixed a sum: it has a kernel for the character and another one for
    the state. From the same weights `charloom.models.Network` with an Elman cell computes the same, only faster: it
    is what the experiments with recurrent layers train, and an LSTM in the cell's place is the tutorial's last step.

    Attributes:
        embedding: a row for each character.
        kernel: from a character's embedding to hidden units.
        recurrent_kernel: from the state to hidden units.
        bias: of the hidden units.
        head: from hidden units to logits.
    """

    embedding: Float[Array, "vocab embed"]
    kernel: Float[Array, "embed hidden"]
    recurrent_kernel: Float[Array, "hidden hidden"]
    bias: Float[Array, " hidden"]
    head: Dense

    @classmethod
    def init(cls, vocab_size: int, rng: np.random.Generator | None) -> "RecurrentLayer":
        """Returns a model with fresh weights, as Keras initializes them."""
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
