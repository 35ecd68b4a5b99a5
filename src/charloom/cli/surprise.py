"""The page that `charloom score --html` writes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from charloom.cli.scoring import Input, joined_names, piece_scores, units_of
from charloom.errors import CharloomError

if TYPE_CHECKING:
    from charloom.artifacts import Output
    from charloom.inference import Cost, Score, Scorer

_TOP_PREDICTIONS = 5


def write_surprise(scorer: "Scorer", model: str, texts: Sequence[Input], page: "Output") -> "Cost":
    """Writes a page of the texts, and returns their cost.

    Raises:
        CharloomError: there is nothing to show, or more than fits on a page.
    """
    import numpy as np

    from charloom.inference import Cost
    from charloom.reports import surprise_page

    scores = _scores(scorer, texts)
    characters = [character for score in scores for character in units_of(score.text)]
    top_predictions = [score.top_predictions for score in scores if score.top_predictions is not None]
    vocabulary = scorer.vocabulary
    html = surprise_page(
        ", ".join(Path(text.name).name for text in texts[:3]) + ", …" * (len(texts) > 3),
        model,
        characters,
        np.concatenate([score.bits for score in scores]),
        np.concatenate([predictions.token_ids for predictions in top_predictions]),
        np.concatenate([predictions.log_probs for predictions in top_predictions]),
        units_of(vocabulary.characters if vocabulary.units == "chars" else bytes(range(256))),
    )
    page.write(html.encode("utf-8", "surrogatepass"))
    return sum((Cost.of(score, score.text) for score in scores), Cost())


def _scores(scorer: "Scorer", texts: Sequence[Input]) -> list["Score"]:
    from charloom.reports import MAX_CHARACTERS, too_long

    scores, characters = [], 0
    for text in texts:
        for score in piece_scores(scorer, text, min(_TOP_PREDICTIONS, scorer.vocabulary.size)):
            characters += score.characters
            if characters > MAX_CHARACTERS:  # no need to score the rest
                raise too_long(joined_names(texts))
            scores.append(score)
    if not characters:
        raise CharloomError(f"{joined_names(texts)} has no character that the model knows. Give another text.")
    return scores
