"""Dynamic evaluation: scores a text with a copy of the model that keeps learning while it reads."""

import numpy as np

from charloom.data import TokenStream, ordered_pass
from charloom.errors import TooShortError
from charloom.inference import MeanScore
from charloom.model import TextModel
from charloom.settings import UnknownPolicy
from charloom.text import Corpus, split_records
from charloom.training import StepRule, initial_state, root_key, run_block

DYNAMIC_RATE = 1e-3
"""Adam's learning rate. `python -m benchmarks.quality.dynamic_evaluation` compares some rates on held-out text."""


def token_stream(model: TextModel, corpus: Corpus, unknown: UnknownPolicy = "error") -> TokenStream:
    """Returns the texts of `corpus` as token ids for the model's network.

    Args:
        model: the model.
        corpus: the texts, read by the model's settings.
        unknown: what to do with characters that the model does not know.

    Raises:
        UnknownCharacterError: a character is unknown and `unknown` is "error".
        TooShortError: no character is left.
    """
    if model.text.delimiter is not None:
        return TokenStream.from_records(split_records(corpus.documents, model.text), model.vocabulary, unknown)
    token_ids = [model.vocabulary.encode(document, unknown) for document in corpus.documents]
    if not any(map(len, token_ids)):
        raise TooShortError(f"{corpus.name} has no character that the model knows. Give another text.")
    return TokenStream.from_documents(token_ids)


def dynamic_score(model: TextModel, stream: TokenStream, learning_rate: float = DYNAMIC_RATE) -> MeanScore:
    """Returns the mean score of `stream`. Each sequence of 64 characters is scored before the copy learns from it.

    The model itself does not change.
    Source: Mikolov et al., 2010 (dynamic models); Krause et al., 2018.
    """
    rule = StepRule(clip_norm=1.0)
    state = initial_state(model.network, 1, rule)
    nats, correct, characters = 0.0, 0.0, 0
    first, key = 0, root_key(0)  # the key is not used, because nothing is random
    for block in ordered_pass(stream):
        rates = np.full(len(block.token_ids), learning_rate, np.float32)
        arrays = block.token_ids, block.resets, block.scored, block.state_resets
        state, totals = run_block(state, *arrays, rates, block.steps, first, key, rule=rule)
        nats += float(np.asarray(totals.nats, dtype=np.float64).sum())
        correct += float(np.asarray(totals.correct, dtype=np.float64).sum())
        characters += block.characters
        first += block.steps
    return MeanScore(nats / characters, correct / characters)
