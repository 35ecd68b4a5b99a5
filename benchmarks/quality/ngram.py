"""A character n-gram model, used as a baseline."""

import math
from collections import Counter, defaultdict


class NgramModel:
    """An n-gram model with `order` - 1 characters of context.

    Witten-Bell smoothing mixes in shorter contexts, down to a uniform distribution over `characters`:

        P(c | h) = (n(h c) + t(h) P(c | h')) / (n(h) + t(h))

    where n(h) counts how often h occurs, t(h) counts the different characters after it, and h' is h without its first
    character.
    Source: Witten and Bell, 1991; Chen and Goodman, 1999, section 2.5.

    >>> model = NgramModel("ab" * 1000, 3, "ab")
    >>> f"{sum(model.bits('ab' * 50, before='ab')) / 100:.1e}"
    '7.2e-07'
    """

    def __init__(self, train: str, order: int, characters: str):
        self._order = order
        self._even = 1 / len(set(characters))
        self._followers: list[defaultdict[str, Counter[str]]] = [defaultdict(Counter) for _ in range(order)]
        for at, character in enumerate(train):
            for length in range(min(order, at + 1)):
                self._followers[length][train[at - length : at]][character] += 1

    def bits(self, text: str, before: str = "") -> list[float]:
        """Returns the bits of each character of `text`, which follows the text `before`."""
        before = before[-(self._order - 1) :]
        costs = []
        for character in text:
            probability = self._even
            for length in range(min(self._order, len(before) + 1)):
                counts = self._followers[length].get(before[len(before) - length :])
                if counts is None:
                    break
                different = len(counts)
                probability = (counts[character] + different * probability) / (counts.total() + different)
            costs.append(-math.log2(probability))
            before = (before + character)[-(self._order - 1) :]
        return costs
