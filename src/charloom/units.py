"""Units of the loss: nats inside, bits and perplexity for people."""

import math


def bits_from_nats(nats: float) -> float:
    """Returns `nats` in bits: nats / ln 2.

    >>> bits_from_nats(math.log(8))
    3.0
    """
    return nats / math.log(2)


def perplexity_from_nats(nats_per_char: float) -> float:
    """Returns the perplexity per character, exp(nats): the number of equally likely characters.

    Infinite where the exponential leaves the range of a float.

    >>> round(perplexity_from_nats(math.log(27)), 9)
    27.0
    """
    try:
        return math.exp(nats_per_char)
    except OverflowError:
        return math.inf


def format_seconds(seconds: float) -> str:
    """Returns a duration as people write it.

    >>> format_seconds(42.4), format_seconds(125), format_seconds(7322)
    ('42 s', '2 min 5 s', '2 h 2 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def finite_or_none(number: float) -> float | None:
    """Returns `number`, or None where it is infinite or none at all: JSON has no such thing."""
    return number if math.isfinite(number) else None
