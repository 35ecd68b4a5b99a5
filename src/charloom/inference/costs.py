"""What a text costs one model, or several that are compared by it."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from charloom.errors import SourceError
from charloom.inference.reading import PEAK, Score, Scorer, peak_bits
from charloom.settings import TextSettings
from charloom.text import text_pieces
from charloom.units import bits_from_nats

UNKNOWN_NATS = math.log(0x110000 - 0x800)
"""What an unknown character costs beside the one that it is taken for, where models are compared: it may be any of
Unicode's. Else a model that knows few characters would get off lightly."""


@dataclass(frozen=True)
class Cost:
    """What texts cost together.

    Attributes:
        nats: of all characters.
        characters: how many were scored.
        unknown: how many the model does not know.
        utf8_bytes: of the characters in UTF-8, the unknown ones too.
        highest: what the most surprising characters cost, in nats; as many as `PEAK`, if there are.
    """

    nats: float = 0.0
    characters: int = 0
    unknown: int = 0
    utf8_bytes: int = 0
    highest: tuple[float, ...] = ()

    @classmethod
    def of(cls, score: Score, text: str | bytes) -> "Cost":
        """Returns what `score` says of `text`."""
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
        """The mean; not a number where nothing was scored."""
        return self.nats / self.characters if self.characters else math.nan

    @property
    def bits_per_char(self) -> float:
        """The mean in bits."""
        return bits_from_nats(self.nats_per_char)

    @property
    def peak_bits(self) -> float:
        """The mean of the most surprising characters, in bits."""
        return peak_bits(self.highest)

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte of UTF-8, unknown characters charged for: what models of other characters are compared by."""
        if not self.utf8_bytes:
            return math.nan
        return bits_from_nats(self.nats + self.unknown * UNKNOWN_NATS) / self.utf8_bytes


def settings_for(scorers: Sequence[Scorer], encoding: str = TextSettings.encoding) -> TextSettings:
    """Returns how to read a text that all of `scorers` are to score: as characters, if any of them knows such.

    Its case is left to each of them, but where a delimiter goes by it. Its encoding is its own, whatever the models
    were trained from.

    Raises:
        SettingError: there is no such encoding, or bytes are read, which have none.
        SourceError: records end in different ways.
    """
    of_records = [scorer.settings for scorer in scorers if scorer.settings.delimiter is not None]
    delimiters = {settings.delimiter for settings in of_records}
    if len(delimiters) > 1:
        named = ", ".join(sorted(map(repr, delimiters)))
        raise SourceError(
            f"the models read texts with different delimiters, {named}: no text can be read for all of them. Compare "
            "models that were trained on texts of one kind."
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
    """Yields the pieces of the text `name` as each of `scorers` sees them, who read it from its beginning to its end.

    The text is read by `settings`, those of `settings_for`. With `top_predictions`, each score has so many.

    Raises:
        CharloomError: the text is not as it should be, or a character is unknown and is an error.
    """
    readings = [scorer.begin(top_predictions) for scorer in scorers]
    pieces: Iterable[str | bytes] = chunks if settings.units == "bytes" else text_pieces(chunks, name, settings)
    for piece in pieces:
        scores = [reading.read(piece)[0] for reading in readings]
        yield [(score, Cost.of(score, piece)) for score in scores]
