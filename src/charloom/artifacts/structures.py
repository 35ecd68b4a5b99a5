"""JSON that charloom reads back, parsed and checked against a type; errors are one line with file and field."""

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

MOST_JSON_BYTES = 16 << 20
"""A longer JSON text is refused; a vocabulary of all of Unicode takes a quarter of it."""

_MOST_MESSAGE = 300
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


def parsed_json(data: bytes | str, where: str, error: type[CharloomError] = ModelFileError) -> Any:
    """Returns the value of a JSON text; strings have no lone surrogates, integers 64 bits, floats are finite.

    Args:
        data: the text; bytes are UTF-8.
        where: what the text is, for the error: a file's name.
        error: what is raised.

    Raises:
        error: the text is not JSON, names a field twice, is too deeply nested, longer than `MOST_JSON_BYTES`, or has
            a number or a string that it may not have.
    """
    where = one_line(where)
    try:
        if len(data) > MOST_JSON_BYTES:
            raise ValueError(f"{len(data):,} characters are too many")
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


def structured(
    data: Any, kind: type[_Kind], where: str, error: type[CharloomError] = ModelFileError, remedy: str = ""
) -> _Kind:
    """Returns `data` as a `kind`, with each type and each bound checked.

    A float that is a whole number is taken for an integer, since JSON does not tell them apart. No other value is
    converted. Fields that a dataclass does not have are refused; a `msgspec.Struct` says for itself whether its are.

    Args:
        data: of `parsed_json`.
        kind: a `msgspec.Struct` or a dataclass, or another type that `msgspec.convert` knows. What its `__post_init__`
            raises begins with the field's name.
        where: what the data are, for the error: a file's name.
        error: what is raised.
        remedy: what to do, as a sentence.

    Raises:
        error: for example `book.safetensors: trained_on.characters is 'x', expected an integer.`

    >>> structured({"size": 3.0}, msgspec.defstruct("Box", [("size", int)]), "box.json")
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
    """Returns `data` with integers instead of floats that are whole numbers, which JSON does not tell apart.

    >>> with_integers({"a": [5.0, 0.5]})
    {'a': [5, 0.5]}
    """
    if isinstance(data, dict):
        return {name: with_integers(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [with_integers(value) for value in data]
    return int(data) if isinstance(data, float) and data.is_integer() and abs(data) < 2**63 else data


def _explained(message: str, data: Any) -> str:
    """Returns what msgspec says of a value, with the value, in the words of the field's name."""
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
    shown = f"is {quoted(found)}" if found is not _UNSEEN else "has a value that is not as expected"
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
    return text if len(text) <= _MOST_MESSAGE else f"{text[:_MOST_MESSAGE]}…"


_UNSEEN = object()


def _value_at(data: Any, path: str) -> Any:
    """Returns the value at a path such as `history[3].step`; `_UNSEEN` where a name in it is left open."""
    for name, index in re.findall(r"([^.\[\]]+)|\[(\d+|\.\.\.)\]", path):
        try:
            data = data[int(index)] if index else data[name]
        except (KeyError, IndexError, TypeError, ValueError):
            return _UNSEEN
    return data


def _surplus(data: Any, kind: Any, path: str = "") -> str | None:
    """Returns the first field of `data` that a dataclass does not have, in `kind` or in the types of its fields."""
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
    raise ValueError(f"{text} is not a number of JSON")


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
        raise ValueError(f"the field {quoted(twice, 60)} stands twice")
    return found
