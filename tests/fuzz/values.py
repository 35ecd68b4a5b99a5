"""Absurd values, and mutated JSON, bytes and tensor files, all from a random generator."""

import copy
import json
import random
import struct
from typing import Any

_DEEP = "a list in a list in a list"
"""A placeholder for ten thousand brackets, which `json.dumps` would not write."""

ABSURD_JSON = [
    *(None, True, False, 0, 1, -1, 3, 255, 2**31 - 1, 2**31, 2**63 - 1, 2**63, -(2**63), 10**400),
    *(-0.0, 0.5, 5.0, -1.5, 1e308, -1e308, 1e-320, float("nan"), float("inf"), float("-inf")),
    *("", "a", "x" * 5_000, "\0", "\x1b[31mred", "a\nb", "\u202eabc", "\ud800", "../../etc", "1", "nan", _DEEP),
    *([], [1], ["a", None], [[]], [0] * 3_000, {}, {"a": 1}, {"name": {}}),
]

ABSURD_ARGUMENTS = [
    *("", " ", "-", "--", "-1", "0", "1", "2", "3.5", "-0", "1e308", "1e999", "nan", "inf", "-inf", "2147483647"),
    *("2147483648", "9223372036854775808", "9" * 400, "0x10", "1_000", "ten", "true", "null", "None", "[]", "{}"),
    *("é", "日本", "\x1b[31mred", "a\nb", "\u202eabc", "\udcff", "x" * 300, "x" * 5_000, "/proc", ".", "..", "~"),
    *("/dev/null", "/proc/self/mem", "/proc/nowhere", "*", "[", "a\\", "%s", "$HOME", "'", '"', "1s", "0s", "1h1h"),
    *("utf-16", "idna", "rot13", "hex", "\\n", "\\x", "native", "lstm", "error", "line", "book.txt", "m.safetensors"),
]


def mutated_json(value: Any, rng: random.Random) -> Any:
    """Returns `value` with one or two of its entries replaced, removed, renamed or added."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 2))):
        value = _mutated_once(value, rng)
    return value


def _mutated_once(value: Any, rng: random.Random) -> Any:
    places = list(_places(value))
    if not places or rng.random() < 0.03:
        return _absurd(rng)
    parent, key = rng.choice(places)
    way = rng.random()
    if way < 0.7:
        parent[key] = _absurd(rng)
    elif way < 0.85:
        del parent[key]
    elif isinstance(parent, dict):
        parent[rng.choice(("", "charloom", "__metadata__", "\x1b[0m", key + "x"))] = parent[key]
    else:
        parent.insert(key, _absurd(rng))
    return value


def _absurd(rng: random.Random) -> Any:
    return copy.deepcopy(rng.choice(ABSURD_JSON))


def _places(value: Any) -> Any:
    """Yields each position inside `value`, as its container and the key there."""
    items = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    for key, inner in items[:200]:
        yield value, key
        yield from _places(inner)


def json_bytes(value: Any) -> bytes:
    """Returns `value` as JSON, including NaN, infinities and extreme nesting."""
    text = json.dumps(value).replace(json.dumps(_DEEP), "[" * 10_000 + "]" * 10_000)
    return text.encode()


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    """Returns `data` truncated, extended, or with some of its bytes replaced."""
    way = rng.randrange(6)
    at = rng.randrange(len(data) + 1)
    length = rng.choice((1, 1, 2, 8, 64, 1024))
    if way == 0:
        return data[:at]
    if way == 1:
        return data + rng.randbytes(length)
    if way == 2:
        return data[:at] + rng.randbytes(length) + data[at + length :]
    if way == 3:
        return data[:at] + data[at + length :]
    if way == 4:
        return data[:at] + bytes(length) + data[at + length :]
    return data[:at] + rng.choice((b"\xff\xfe", b"\0", b"\n", b"{", b'"', b"\xed\xa0\x80", b"\r\n")) + data[at:]


def mutated_tensor_file(data: bytes, rng: random.Random) -> bytes:
    """Returns a safetensors file with an error in its bytes, header, metadata or weights."""
    way = rng.random()
    (length,) = struct.unpack("<Q", data[:8])
    header, tensors = json.loads(data[8 : 8 + length]), data[8 + length :]
    if way < 0.2:
        return mutated_bytes(data, rng)
    if way < 0.3:
        weight = rng.choice((float("nan"), float("inf"), -float("inf"), 3e38, 1e-45, 0.0))
        at = 4 * rng.randrange(max(1, len(tensors) // 4))
        tensors = tensors[:at] + struct.pack("<f", weight) + tensors[at + 4 :]
    elif way < 0.45:
        header = mutated_json(header, rng)
    else:
        metadata = header["__metadata__"]
        metadata["charloom"] = json_bytes(mutated_json(json.loads(metadata["charloom"]), rng)).decode()
    body = json_bytes(header)
    return struct.pack("<Q", len(body)) + body + tensors
