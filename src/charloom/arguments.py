"""Converts arguments of Python's, NumPy's and JAX's types to Python's own types, and refuses all others.

Truth values do not count as numbers here, although Python's bool is an integer type.
"""

import math
import operator
import os
from pathlib import Path
from typing import Any

from charloom.errors import SettingError, TextTypeError, UnknownCharacterError
from charloom.printable import quoted


def whole_number(name: str, value: Any, minimum: int, maximum: int) -> int:
    """Returns `value` as an int.

    Raises:
        SettingError: it is not an integer from `minimum` to `maximum`. 5.0 is not an integer.
    """
    number = _integer(value)
    if number is None or not minimum <= number <= maximum:
        bound = "2**63 - 1" if maximum == 2**63 - 1 else f"{maximum:,}"
        raise SettingError(name, f"must be a whole number from {minimum:,} to {bound}, got {quoted(value)}")
    return number


def number(
    name: str,
    value: Any,
    *,
    minimum: float = -math.inf,
    above: float = -math.inf,
    below: float = math.inf,
    maximum: float = math.inf,
) -> float:
    """Returns `value` as a float.

    Raises:
        SettingError: it is not a finite number within the bounds.
    """
    found = _float(value)
    # NaN fails the first comparison.
    if found is not None and minimum <= found <= maximum and above < found < below and math.isfinite(found):
        return found
    bounds = [
        f"{words} {bound:g}"
        for words, bound in (("at least", minimum), ("above", above), ("below", below), ("at most", maximum))
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
        SettingError: it is not one of `choices`.
    """
    if isinstance(value, str) and value in choices:
        return str(value)
    raise SettingError(name, f"must be {' or '.join(choices)}, got {quoted(value)}")


def path(name: str, value: Any, *, folder: bool = False) -> Path:
    """Returns `value` as a Path, without looking for the file.

    Raises:
        SettingError: no file can have this name, or no folder if `folder` is true.
    """
    try:
        text = os.fsdecode(value)
    except TypeError:
        raise SettingError(name, f"must be a path, got {quoted(value)}") from None
    if not text:
        raise SettingError(name, "must be a path, got an empty string")
    if "\0" in text:
        raise SettingError(name, f"must be a path, got {quoted(text)}, which has a null byte")
    try:
        os.fsencode(text)
    except UnicodeEncodeError as error:
        character = f"U+{ord(text[error.start]):04X}"
        raise SettingError(name, f"must be a path, got {quoted(text)}: no file name can have {character}") from None
    if not folder and text.endswith(tuple(filter(None, (os.sep, os.altsep)))):
        raise SettingError(name, f"must be a file, got a folder's name, {quoted(text)}")
    return Path(text)


def text(name: str, value: Any, units: str) -> str | bytes:
    """Returns a text that a model of `units` can read: a str for characters, a str or bytes for bytes.

    Raises:
        TextTypeError: it is not a text, or it is bytes and the model reads characters.
        UnknownCharacterError: the model reads bytes, and a character has no bytes in UTF-8.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        if units == "bytes":
            return bytes(value)
        raise TextTypeError(
            f"{name} is bytes, but this model reads characters. Decode it first, for example with text.decode('utf-8')."
        )
    if not isinstance(value, str):
        missing = value is None or (isinstance(value, float) and math.isnan(value))
        remedy = "Leave out missing values, for example with Series.dropna()" if missing else "Convert it with str()"
        raise TextTypeError(f"{name} must be a string, got {quoted(value)} of type {type(value).__name__}. {remedy}.")
    if units == "bytes":
        try:
            value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise UnknownCharacterError(
                f"{name} has half a character (U+{ord(value[error.start]):04X}) at character {error.start}, which has "
                "no bytes in UTF-8. Remove it, or give bytes."
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
    # float() would also accept NumPy's texts, and arrays of one number.
    if isinstance(value, bool | str | bytes) or _kind(value) not in "iufV" or getattr(value, "ndim", None):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _kind(value: Any) -> str:
    """Returns NumPy's letter for the kind of a value's type; "f" for types that are not NumPy's."""
    return str(getattr(getattr(value, "dtype", None), "kind", "f"))
