"""What a model's tokens are called in answers, and which characters of a text they are."""

from array import array
from bisect import bisect_right

import numpy as np
from jaxtyping import Integer

from charloom.text import Vocabulary


def token_names(vocabulary: Vocabulary) -> list[str]:
    """Returns each token's name: its character, or of a byte that is no ASCII what OpenAI calls such."""
    if vocabulary.units == "chars":
        return list(vocabulary.characters)
    return [chr(byte) if byte < 0x80 else f"bytes:\\x{byte:02x}" for byte in range(256)]


class OffsetDecoder:
    """Turns token ids into text piece by piece, and knows which token each character ends with.

    A token of characters is one of them; several bytes make a character, and one may make two: the end of what was
    none, and itself.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._decode = vocabulary.decoder()
        self._ends: array[int] | None = None if vocabulary.units == "chars" else array("i")
        self._read = 0

    def __call__(self, token_ids: Integer[np.ndarray, " time"], final: bool = False) -> str:
        if self._ends is None:
            return self._decode(token_ids, final)
        pieces = []
        for at in range(len(token_ids)):
            pieces.append(self._decode(token_ids[at : at + 1]))
            self._ends.extend([self._read] * (len(pieces[-1]) - 1))
            self._read += 1
            self._ends.extend([self._read] * bool(pieces[-1]))
        if final:
            pieces.append(self._decode(token_ids[:0], True))
            self._ends.extend([self._read] * len(pieces[-1]))
        return "".join(pieces)

    def token_count(self, characters: int) -> int:
        """Returns how many tokens the first characters of the text are."""
        if self._ends is None or characters == 0:
            return characters
        return self._ends[characters - 1]

    def offset_of(self, token: int) -> int:
        """Returns how many characters of the text are complete before a token."""
        return token if self._ends is None else bisect_right(self._ends, token)
