"""Arguments of any library's number types (Python's, NumPy's, JAX's), as Python's own; what cannot be one is refused.

Truth values are no numbers here, though Python has them as integers.
"""

import math
import operator
import os
from pathlib import Path
from typing import Any

from charloom.errors import SettingError, TextTypeError, UnknownCharacterError
from charloom.printable import quoted


def whole_number(name: str, value: Any, least: int, most: int) -> int:
    """Returns `value` as an int.

    Raises:
        SettingError: it is not an integer from `least` to `most`; 5.0 is none.
    """
    number = _integer(value)
    if number is None or not least <= number <= most:
        bound = "2**63 - 1" if most == 2**63 - 1 else f"{most:,}"
        raise SettingError(name, f"must be a whole number from {least:,} to {bound}, got {quoted(value)}")
    return number


def number(
    name: str,
    value: Any,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    below: float = math.inf,
    most: float = math.inf,
) -> float:
    """Returns `value` as a float.

    Raises:
        SettingError: it is not a finite number within the bounds.
    """
    found = _float(value)
    # NaN fails the first comparison.
    if found is not None and least <= found <= most and above < found < below and math.isfinite(found):
        return found
    bounds = [
        f"{words} {bound:g}"
        for words, bound in (("at least", least), ("above", above), ("below", below), ("at most", most))
        if math.isfinite(bound)
    ]
    raise SettingError(name, f"must be a finite number, {' and '.join(bounds)}, got {quoted(value)}")


def flag(name: str, value: Any) -> bool:
    """Returns a truth value as a bool.

    Raises:
        SettingError: it is something else, such as "no".
    """
    if isinstance(value, bool) or _kind(value) == "b":
        return bool(value)
    raise SettingError(name, f"must be True or False, got {quoted(value)}")


def choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """Returns `value` as a str.

    Raises:
        SettingError: it is none of `choices`.
    """
    if isinstance(value, str) and value in choices:
        return str(value)
    raise SettingError(name, f"must be {' or '.join(choices)}, got {quoted(value)}")


def path(name: str, value: Any, *, folder: bool = False) -> Path:
    """Returns `value` as a Path; what is there is not looked at.

    Raises:
        SettingError: it cannot be a file's name, or a folder's.
    """
    try:
        text = os.fsdecode(value)
    except TypeError:
        raise SettingError(name, f"must be a path, got {quoted(value)}") from None
    if not text:
        raise SettingError(name, "must be a path, got an empty one")
    if "\0" in text:
        raise SettingError(name, f"must be a path, got {quoted(text)}, which has a null byte")
    try:
        os.fsencode(text)
    except UnicodeEncodeError as error:
        character = f"U+{ord(text[error.start]):04X}"
        raise SettingError(name, f"must be a path, got {quoted(text)}: no file name has a {character}") from None
    if not folder and text.endswith(tuple(filter(None, (os.sep, os.altsep)))):
        raise SettingError(name, f"must be a file, got a folder's name, {quoted(text)}")
    return Path(text)


def text(name: str, value: Any, units: str) -> str | bytes:
    """Returns a text that a model of `units` can read; of characters a str, of bytes either.

    Raises:
        TextTypeError: it is not a text, or it is bytes and the model reads characters.
        UnknownCharacterError: the model reads bytes, and a character has none in UTF-8.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        if units == "bytes":
            return bytes(value)
        raise TextTypeError(
            f"{name} is bytes, and this model reads characters. Decode it first, such as by text.decode('utf-8')."
        )
    if not isinstance(value, str):
        missing = value is None or (isinstance(value, float) and math.isnan(value))
        remedy = "Leave out what is missing, such as by Series.dropna()" if missing else "Convert it by str()"
        raise TextTypeError(f"{name} must be a text, got {quoted(value)}, of type {type(value).__name__}. {remedy}.")
    if units == "bytes":
        try:
            value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise UnknownCharacterError(
                f"{name} has half a character (U+{ord(value[error.start]):04X}) at character {error.start}, which has "
                "no bytes in UTF-8. Take it out, or give bytes."
            ) from None
    return value


def _integer(value: Any) -> int | None:
    if isinstance(value, bool) or _kind(value) == "b":
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def _float(value: Any) -> float | None:
    # NumPy turns texts and arrays of one number into floats as well.
    if isinstance(value, bool | str | bytes) or _kind(value) not in "iufV" or getattr(value, "ndim", None):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _kind(value: Any) -> str:
    """Returns what NumPy calls the kind of a value's type; "f" where it has none."""
    return str(getattr(getattr(value, "dtype", None), "kind", "f"))
