"""JSON parsing and checks against a type. Every error is one line that names the file and the field."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, NoReturn, TypeVar, Union, get_args, get_origin

import msgspec

from charloom.errors import CharloomError, ModelFileError
from charloom.printable import one_line, quoted

MAX_JSON_BYTES = 16 << 20
"""A longer JSON text is refused. A vocabulary of all of Unicode takes a quarter of this."""

_MAX_MESSAGE_LENGTH = 300
_Kind = TypeVar("_Kind")
_WORDS = {
    "int": "an integer",
    "float": "a number",
    "str": "a string",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}


def parse_json(data: bytes | str, where: str, error: type[CharloomError] = ModelFileError) -> Any:
    """Returns the value of a JSON text.

    Lone surrogates, integers of more than 64 bits and floats that are not finite are refused.

    Args:
        data: the text; bytes are UTF-8.
        where: the name of the text for error messages, such as a file name.
        error: the type of exception to raise.

    Raises:
        error: the text is not JSON, repeats a field, is too deeply nested, is longer than `MAX_JSON_BYTES`, or has
            a number or a string that is refused.
    """
    where = one_line(where)
    try:
        if len(data) > MAX_JSON_BYTES:
            raise ValueError(f"{len(data):,} characters are more than the maximum of {MAX_JSON_BYTES:,}")
        text = data if isinstance(data, str) else data.decode()
        value = json.loads(
            text,
            parse_constant=_refused_constant,
            parse_float=_finite,
            parse_int=_of_64_bits,
            object_pairs_hook=_without_duplicates,
        )
        if re.search(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]", text):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError:
        raise error(f"{where} is damaged: its text is not valid Unicode in UTF-8.") from None
    except RecursionError:
        raise error(f"{where} is damaged: its JSON is too deeply nested.") from None
    except ValueError as problem:
        raise error(f"{where} is damaged: it is not valid JSON ({_cut(str(problem))}).") from None
    return value


def convert_json(
    data: Any, kind: type[_Kind], where: str, error: type[CharloomError] = ModelFileError, remedy: str = ""
) -> _Kind:
    """Returns `data` as a `kind`, with each type and each bound checked.

    A float that is a whole number counts as an integer, because JSON does not distinguish them. No other value is
    converted. Fields that a dataclass does not have are refused. A `msgspec.Struct` decides about its unknown fields.

    Args:
        data: a value from `parse_json`.
        kind: a `msgspec.Struct`, a dataclass, or another type that `msgspec.convert` knows. Messages from its
            `__post_init__` must begin with the field's name.
        where: the name of the data for error messages, such as a file name.
        error: the type of exception to raise.
        remedy: what the user can do, as a sentence.

    Raises:
        error: for example `book.safetensors: trained_on.characters is 'x', expected an integer.`

    >>> convert_json({"size": 3.0}, msgspec.defstruct("Box", [("size", int)]), "box.json")
    Box(size=3)
    """
    try:
        surplus = _surplus(data, kind)
        if surplus is not None:
            raise msgspec.ValidationError(f"Object contains unknown field `{surplus}`")
        try:
            return msgspec.convert(data, kind)
        except msgspec.ValidationError:
            return msgspec.convert(with_integers(data), kind)
    except msgspec.ValidationError as problem:
        message = f"{one_line(where)}: {_explained(str(problem), data)}."
    except RecursionError:
        message = f"{one_line(where)} is too deeply nested."
    raise error(f"{message} {remedy}".rstrip())


def with_integers(data: Any) -> Any:
    """Returns `data` with integers instead of floats that are whole numbers. JSON does not distinguish them.

    >>> with_integers({"a": [5.0, 0.5]})
    {'a': [5, 0.5]}
    """
    if isinstance(data, dict):
        return {name: with_integers(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [with_integers(value) for value in data]
    return int(data) if isinstance(data, float) and data.is_integer() and abs(data) < 2**63 else data


def _explained(message: str, data: Any) -> str:
    """Returns msgspec's error message with the field's name and value."""
    problem, _, place = message.partition(" - at `")
    is_key = place.startswith("key` in `")
    path = place.removeprefix("key` in `").rstrip("`").removeprefix("$").lstrip(".")
    name, found = one_line(path) or "its content", _value_at(data, path)
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", problem, re.DOTALL):
        return f"{_dotted(path, _cut(one_line(unknown[1])))} is not a field that this version knows"
    if missing := re.fullmatch(r"Object missing required field `(.*)`", problem):
        return f"{_dotted(path, missing[1])} is missing"
    if is_key:
        return f"a name in {name} is not as expected ({problem})"
    shown = f"is {quoted(found)}" if found is not _UNKNOWN else "has a value that is not as expected"
    if expected := re.match(r"Expected (.*?)(?:, got .*)?$", problem, re.DOTALL):
        return f"{name} {shown}, expected {re.sub('`(.*?)`', _in_words, expected[1])}"
    if problem.startswith("Invalid enum value"):
        return f"{name} {shown}, which this version does not know"
    if problem.startswith("Number out of range"):
        return f"{name} {shown}, expected a number of 64 bits"
    return _cut(_dotted(path, one_line(problem)))


def _in_words(match: re.Match[str]) -> str:
    return " or ".join(_WORDS.get(name, name) for name in match[1].split(" | "))


def _dotted(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_MESSAGE_LENGTH else f"{text[:_MAX_MESSAGE_LENGTH]}…"


_UNKNOWN = object()


def _value_at(data: Any, path: str) -> Any:
    """Returns the value at a path such as `history[3].step`; `_UNKNOWN` if the path has an unspecified name."""
    for name, index in re.findall(r"([^.\[\]]+)|\[(\d+|\.\.\.)\]", path):
        try:
            data = data[int(index)] if index else data[name]
        except (KeyError, IndexError, TypeError, ValueError):
            return _UNKNOWN
    return data


def _surplus(data: Any, kind: Any, path: str = "") -> str | None:
    """Returns the first unknown field of `data`, for dataclasses in `kind` and in the types of its fields."""
    if isinstance(data, Mapping) and isinstance(kind, type):
        known = {one.name: one.type for one in fields(kind)} if is_dataclass(kind) else None
        if known is None and issubclass(kind, msgspec.Struct):
            types = {one.encode_name: one.type for one in msgspec.structs.fields(kind)}
        else:
            types = known or {}
        for name, value in data.items():
            if known is not None and name not in known:
                return _dotted(path, str(name))
            for one in _alternatives(types.get(name)):
                if found := _surplus(value, one, _dotted(path, str(name))):
                    return found
    return None


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _refused_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def _finite(text: str) -> float:
    if math.isfinite(number := float(text)):
        return number
    raise ValueError(f"{text[:30]} is too large for a number of 64 bits")


def _of_64_bits(text: str) -> int:
    if len(text) <= 20 and -(2**63) <= (number := int(text)) < 2**64:
        return number
    raise ValueError(f"{text[:30]} is too large for a number of 64 bits")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the field {quoted(twice, 60)} occurs twice")
    return found
