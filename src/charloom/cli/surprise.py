"""The page that `charloom score --html` writes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from charloom.cli.scoring import Input, named, piece_scores, units_of
from charloom.errors import CharloomError

if TYPE_CHECKING:
    from charloom.artifacts import Output
    from charloom.inference import Cost, Score, Scorer

_GUESSES = 5


def write_surprise(scorer: "Scorer", model: str, found: Sequence[Input], page: "Output") -> "Cost":
    """Writes a page of the texts, and returns what they cost.

    Raises:
        CharloomError: there is nothing to show, or more than a page can.
    """
    import numpy as np

    from charloom.inference import Cost
    from charloom.reports import surprise_page

    scores = _scores(scorer, found)
    characters = [character for score in scores for character in units_of(score.text)]
    top_predictions = [score.top_predictions for score in scores if score.top_predictions is not None]
    vocabulary = scorer.vocabulary
    html = surprise_page(
        ", ".join(Path(one.name).name for one in found[:3]) + ", …" * (len(found) > 3),
        model,
        characters,
        np.concatenate([score.bits for score in scores]),
        np.concatenate([one.token_ids for one in top_predictions]),
        np.concatenate([one.log_probs for one in top_predictions]),
        units_of(vocabulary.characters if vocabulary.units == "chars" else bytes(range(256))),
    )
    page.write(html.encode("utf-8", "surrogatepass"))
    return sum((Cost.of(score, score.text) for score in scores), Cost())


def _scores(scorer: "Scorer", found: Sequence[Input]) -> list["Score"]:
    from charloom.reports import MOST_CHARACTERS, too_long

    scores, characters = [], 0
    for one in found:
        for score in piece_scores(scorer, one, min(_GUESSES, scorer.vocabulary.size)):
            characters += score.characters
            if characters > MOST_CHARACTERS:  # no need to score the rest
                raise too_long(named(found))
            scores.append(score)
    if not characters:
        raise CharloomError(f"{named(found)} has no character that the model knows. Give another text.")
    return scores
