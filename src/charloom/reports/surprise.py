"""A text colored by surprise: what each character cost a model, and what it expected in its place."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

from charloom.errors import CharloomError
from charloom.reports.pages import rendered, script_data

MOST_CHARACTERS = 200_000
"""Characters that a page can show; a browser takes seconds for more."""
LEVELS = (1, 2, 4, 6, 9)
"""Bits at which a character's color changes."""


def too_long(title: str) -> CharloomError:
    """Returns what to say of a text that no page can show."""
    return CharloomError(
        f"{title} has more than the {MOST_CHARACTERS:,} characters that a page can show. Give a part of it, or look "
        "for the lines to show with --per line --top."
    )


def surprise_page(
    title: str,
    model: str,
    characters: Sequence[str],
    bits: Float32[np.ndarray, " characters"],
    top_predictions: Int32[np.ndarray, "characters top_predictions"],
    log_probs: Float32[np.ndarray, "characters top_predictions"],
    alphabet: Sequence[str],
) -> str:
    """Returns a self-contained HTML page.

    Args:
        title: what the text is called.
        model: what the model is called.
        characters: the text.
        bits: what each cost.
        top_predictions: the most likely tokens in each place, as positions in `alphabet`.
        log_probs: natural logarithms of their probabilities.
        alphabet: what the model can guess.

    Raises:
        CharloomError: there is more text than a page can show.
    """
    if len(characters) > MOST_CHARACTERS:
        raise too_long(title)
    data: dict[str, Any] = {
        "characters": list(characters),
        # JSON knows finite numbers alone.
        "bits": np.round(np.nan_to_num(bits.astype(np.float64), posinf=999), 2).tolist(),
        "top_predictions": top_predictions.flatten().tolist(),
        # In thousandths: all that is shown of them.
        "chances": np.round(1000 * np.nan_to_num(np.exp(log_probs.astype(np.float64)))).astype(int).flatten().tolist(),
        "each": top_predictions.shape[1],
        "alphabet": list(alphabet),
        "levels": LEVELS,
    }
    return rendered(
        "surprise.html.j2",
        title=title,
        model=model,
        count=len(characters),
        bits_per_char=float(bits.mean(dtype=np.float64)),
        levels=LEVELS,
        data=script_data(data),
    )
