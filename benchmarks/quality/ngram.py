"""An n-gram model of characters, to compare with."""

import math
from collections import Counter, defaultdict


def ngram_bits_per_char(train: str, text: str, order: int) -> float:
    """Returns the bits that a character of `text` costs a model of `order` - 1 characters of context.

    Shorter contexts are mixed in by Witten and Bell's weights, down to an even chance for each character of both texts:

        P(c | h) = (n(h c) + t(h) P(c | h')) / (n(h) + t(h))

    with n(h) how often h came, t(h) how many different characters came after it, and h' without its first character.
    Source: Witten and Bell, 1991; Chen and Goodman, 1999, section 2.5.

    >>> f"{ngram_bits_per_char('ab' * 1000, 'ab' * 50, 3):.1e}"
    '7.2e-07'
    """
    followers: list[defaultdict[str, Counter[str]]] = [defaultdict(Counter) for _ in range(order)]
    for at, character in enumerate(train):
        for length in range(min(order, at + 1)):
            followers[length][train[at - length : at]][character] += 1
    even = 1 / len(set(train) | set(text))
    bits = 0.0
    before = train[-(order - 1) :]
    for character in text:
        probability = even
        for length in range(min(order, len(before) + 1)):
            counts = followers[length].get(before[len(before) - length :])
            if counts is None:
                break
            different = len(counts)
            probability = (counts[character] + different * probability) / (counts.total() + different)
        bits -= math.log2(probability)
        before = (before + character)[-(order - 1) :]
    return bits / len(text)
