"""Dynamic evaluation: what a text costs a model that keeps learning while it reads; no figure of the model as it is."""

import numpy as np

from charloom.data import TokenStream, ordered_pass
from charloom.inference import Score
from charloom.model import TextModel
from charloom.training import UpdateRule, initial_state, root_key, run_block

ADAPTING_RATE = 1e-3
"""Adam's rate while a text is read; `python -m benchmarks.quality.adapting` compares some on validation parts."""


def adapted_score(model: TextModel, stream: TokenStream, learning_rate: float = ADAPTING_RATE) -> Score:
    """Returns the means over all of `stream`, each unroll scored before the model learns from it.

    An unroll has 64 characters. The model itself is as it was.
    Source: Mikolov et al., 2010 (dynamic models); Krause et al., 2018.
    """
    rule = UpdateRule(clip_norm=1.0)
    state = initial_state(model.network, 1, rule)
    nats, correct, characters = 0.0, 0.0, 0
    first, key = 0, root_key(0)  # nothing is drawn
    for block in ordered_pass(stream):
        rates = np.full(len(block.token_ids), learning_rate, np.float32)
        arrays = block.token_ids, block.resets, block.scored, block.cold
        state, totals = run_block(state, *arrays, rates, block.updates, first, key, rule=rule)
        nats += float(np.asarray(totals.nats, dtype=np.float64).sum())
        correct += float(np.asarray(totals.correct, dtype=np.float64).sum())
        characters += block.characters
        first += block.updates
    return Score(nats / characters, correct / characters)
