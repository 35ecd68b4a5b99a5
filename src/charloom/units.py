"""Units: nats inside charloom, bits and perplexity for people; and durations."""

import math
import re

LONG_WAIT_SECONDS = 3.0
"""charloom announces how long a wait takes if it takes longer than this."""

_NUMBER = r"(\d+\.?\d*|\.\d+)"
_DURATION = re.compile(rf"(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s)?")


def bits_from_nats(nats: float) -> float:
    """Returns `nats` in bits: nats / ln 2.

    >>> bits_from_nats(math.log(8))
    3.0
    """
    return nats / math.log(2)


def perplexity_from_nats(nats_per_char: float) -> float:
    """Returns the perplexity per character, exp(nats): the number of equally likely characters.

    Infinity if the exponential is too large for a float.

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


def significant(number: float, digits: int) -> str:
    """Returns a number with this many significant digits. Larger whole numbers keep all their digits.

    >>> significant(0.98765, 2), significant(98.5, 3), significant(123456.7, 3)
    ('0.99', '98.5', '123,457')
    """
    return f"{number:.{digits}g}" if number < 10**digits - 0.5 else f"{number:,.0f}"


def parse_seconds(text: str) -> float:
    """Returns a duration in seconds. It is written as numbers with the units h, m and s, the largest unit first.

    Raises:
        ValueError: `text` is not a duration.

    >>> parse_seconds("90s"), parse_seconds("1.5m"), parse_seconds("1h30m")
    (90.0, 90.0, 5400.0)
    """
    found = _DURATION.fullmatch(text.strip().lower())
    if not found or not any(found.groups()):
        raise ValueError(f"{text!r} is not a duration: give one such as 90s, 10m, 2h or 1h30m")
    return sum(float(number) * seconds for number, seconds in zip(found.groups(), (3600, 60, 1), strict=True) if number)


def shortest_seconds(seconds: float) -> str:
    """Returns a duration in the shortest form that `parse_seconds` reads.

    >>> shortest_seconds(90), shortest_seconds(7200), shortest_seconds(77.5)
    ('90s', '2h', '77.5s')
    """
    for unit, length in (("h", 3600), ("m", 60)):
        if seconds % length == 0:
            return f"{seconds // length:.0f}{unit}"
    return f"{seconds:.10g}s"


def finite_or_none(number: float) -> float | None:
    """Returns `number`, or None if it is infinite or not a number, which JSON cannot express."""
    return number if math.isfinite(number) else None
