"""Names of tokens in responses, and the mapping between tokens and characters."""

from array import array
from bisect import bisect_right

import numpy as np
from jaxtyping import Integer

from charloom.text import Vocabulary


def token_names(vocabulary: Vocabulary) -> list[str]:
    """Returns the name of each token: its character, or OpenAI's notation for a byte that is not ASCII."""
    if vocabulary.units == "chars":
        return list(vocabulary.characters)
    return [chr(byte) if byte < 0x80 else f"bytes:\\x{byte:02x}" for byte in range(256)]


class OffsetDecoder:
    """Decodes token ids piece by piece, and keeps track of the characters that each token completes.

    In a model of characters, each token is one character. In a model of bytes, several tokens can be one character.
    One token can also complete two: an invalid sequence before it, and itself.
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
        """Returns the number of tokens of the first `characters` characters."""
        if self._ends is None or characters == 0:
            return characters
        return self._ends[characters - 1]

    def offset_of(self, token: int) -> int:
        """Returns the number of characters that are complete before a token."""
        return token if self._ends is None else bisect_right(self._ends, token)
