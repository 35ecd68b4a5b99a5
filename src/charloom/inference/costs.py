"""Totals of scores: what a text costs one model, or several models that are compared."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from charloom.errors import SourceError
from charloom.inference.scorer import Scorer
from charloom.inference.scores import PEAK, UNKNOWN_NATS, Score, peak_bits
from charloom.settings import TextSettings
from charloom.text import text_pieces
from charloom.units import bits_from_nats


@dataclass(frozen=True)
class Cost:
    """The total score of one or more texts.

    Attributes:
        nats: sum over all scored characters.
        characters: number of scored characters.
        unknown: number of characters that the model does not know.
        utf8_bytes: length of the texts in UTF-8, including unknown characters.
        highest: nats of the `PEAK` most surprising characters, or of all if there are fewer.
    """

    nats: float = 0.0
    characters: int = 0
    unknown: int = 0
    utf8_bytes: int = 0
    highest: tuple[float, ...] = ()

    @classmethod
    def of(cls, score: Score, text: str | bytes) -> "Cost":
        """Returns the totals of `score`, the score of `text`."""
        in_utf8 = text if isinstance(text, bytes) or text.isascii() else text.encode("utf-8", "surrogatepass")
        return cls(score.total_nats, score.characters, score.unknown, len(in_utf8), tuple(score.highest.tolist()))

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.nats + other.nats,
            self.characters + other.characters,
            self.unknown + other.unknown,
            self.utf8_bytes + other.utf8_bytes,
            tuple(sorted(self.highest + other.highest)[-PEAK:]),
        )

    @property
    def nats_per_char(self) -> float:
        """Mean in nats; NaN if nothing was scored."""
        return self.nats / self.characters if self.characters else math.nan

    @property
    def bits_per_char(self) -> float:
        """Mean in bits; NaN if nothing was scored."""
        return bits_from_nats(self.nats_per_char)

    @property
    def peak_bits(self) -> float:
        """Mean of the most surprising characters in bits, including unknown ones."""
        return peak_bits(self.highest, self.unknown)

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte of UTF-8, by which models with different vocabularies can be compared.

        Each unknown character costs `UNKNOWN_NATS` more. Without that, a small vocabulary would be an advantage.
        """
        if not self.utf8_bytes:
            return math.nan
        return bits_from_nats(self.nats + self.unknown * UNKNOWN_NATS) / self.utf8_bytes


def settings_for(scorers: Sequence[Scorer], encoding: str = TextSettings.encoding) -> TextSettings:
    """Returns how to read a text that all of `scorers` score: as characters if any of the models reads characters.

    Each scorer handles case itself, except where the delimiter depends on it.
    The encoding is that of the text, whatever the models were trained on.

    Raises:
        SettingError: the encoding does not exist, or the text is read as bytes, which have no encoding.
        SourceError: the models' records have different delimiters.
    """
    of_records = [scorer.settings for scorer in scorers if scorer.settings.delimiter is not None]
    delimiters = {settings.delimiter for settings in of_records}
    if len(delimiters) > 1:
        named = ", ".join(sorted(map(repr, delimiters)))
        raise SourceError(
            f"the models use different delimiters: {named}. Compare models that were trained on the same kind of text."
        )
    return TextSettings(
        units="chars" if any(scorer.settings.units == "chars" for scorer in scorers) else "bytes",
        encoding=encoding,
        delimiter=next(iter(delimiters), None),
        lowercase=any(settings.lowercase for settings in of_records),
    )


def scored_pieces(
    scorers: Sequence[Scorer], chunks: Iterable[bytes], name: str, settings: TextSettings, top_predictions: int = 0
) -> Iterator[list[tuple[Score, Cost]]]:
    """Yields each piece of the text `name` with its scores, one per scorer. The text is read in order.

    Args:
        scorers: one for each model.
        chunks: the bytes of the text.
        name: the name of the text, for error messages.
        settings: how to read the text, from `settings_for`.
        top_predictions: number of top predictions that each score has per position.

    Raises:
        CharloomError: the text cannot be read, or it has an unknown character and the policy is "error".
    """
    incremental_scorers = [scorer.begin(top_predictions) for scorer in scorers]
    pieces: Iterable[str | bytes] = chunks if settings.units == "bytes" else text_pieces(chunks, name, settings)
    for piece in pieces:
        scores = [one.score(piece)[0] for one in incremental_scorers]
        yield [(score, Cost.of(score, piece)) for score in scores]
