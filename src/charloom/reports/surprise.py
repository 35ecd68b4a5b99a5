"""A text colored by surprise: the bits of each character, and the model's predictions for its place."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

from charloom.errors import CharloomError
from charloom.reports.pages import rendered, script_data

MAX_CHARACTERS = 200_000
"""How many characters a page can show. More would take a browser several seconds."""
LEVELS = (1, 2, 4, 6, 9)
"""Bits at which a character's color changes."""


def too_long(title: str) -> CharloomError:
    """Returns the error for a text that is too long for a page."""
    return CharloomError(
        f"{title} has more than the {MAX_CHARACTERS:,} characters that a page can show. Give a part of it, or find "
        "its most surprising lines with --per line --top."
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
        title: the text's name.
        model: the model's name.
        characters: the text.
        bits: the bits of each character.
        top_predictions: the most likely tokens for each place, as positions in `alphabet`.
        log_probs: natural logarithms of their probabilities.
        alphabet: the characters that the model can predict.

    Raises:
        CharloomError: the text is too long for a page.
    """
    if len(characters) > MAX_CHARACTERS:
        raise too_long(title)
    data: dict[str, Any] = {
        "characters": list(characters),
        # JSON has only finite numbers.
        "bits": np.round(np.nan_to_num(bits.astype(np.float64), posinf=999), 2).tolist(),
        "top_predictions": top_predictions.flatten().tolist(),
        # In thousandths, which is the precision that the page shows.
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
