#!/usr/bin/env python3
"""Fills in the tables of docs/reference/http.md from the types that the server checks requests with.

The page's text is written by hand. Types, ranges and defaults come from `charloom.server.schema` and
`charloom.server.limits`. The meanings are below: a field without one, or a meaning without a field, is an error.
"""

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec.inspect as inspect

from charloom.artifacts import write_bytes
from charloom.cell_facts import CELL_FACTS
from charloom.cli.serve import serve
from charloom.server import Limits
from charloom.server.completions import _DEFAULT_TOKENS
from charloom.server.routes import OPERATIONS, Operation
from charloom.server.schema import ProblemResponse

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "http.md"
_TABLE = re.compile(r"<!-- table: (\w+) -->\n.*?<!-- end of table -->", re.DOTALL)
_OPERATIONS, _LIMITS = "Operations", "Limits"

_MODEL = "Name of the model, as `GET /v1/models` lists it. The default is the first model of the command line."
_UNKNOWN = (
    "What happens to characters that the model does not know: `error` refuses the request, `skip` leaves them out, and "
    "`replace` reads U+FFFD, a space or the first character of the vocabulary."
)
_UNKNOWN_COUNT = "Number of characters that the model does not know."
_BITS = "Mean over the scored characters, in bits. `null` if nothing was scored."

MEANINGS: dict[str, dict[str, str]] = {
    _OPERATIONS: {
        "/v1/completions": "Generate texts, whole or streamed.",
        "/v1/score": "Score texts.",
        "/v1/next": "Get the distribution of the next token.",
        "/v1/models": "List the models.",
        "/v1/models/{name}": "Describe one model.",
        "/health": "Ask whether the server takes requests.",
        "/metrics": "Get counters for Prometheus.",
        "/openapi.json": "Get the API as an OpenAPI 3.1 document.",
    },
    "CompletionRequest": {
        "model": _MODEL,
        "prompt": "What the texts continue: a string, an array of strings, an array of token ids, or an array of "
        "arrays of token ids. Do not mix them. Without a prompt a text starts as if after a newline.",
        "max_tokens": "Most tokens to generate per text. The server's `max_tokens` bounds it.",
        "temperature": "Divides the logits before sampling. 0 always takes the most likely token.",
        "top_p": "Sample from the fewest tokens whose probabilities add up to this. 0 is read as 0.000000001.",
        "top_k": "Sample from the k most likely tokens.",
        "n": "Texts per prompt. The number of prompts times `n` is bounded by the server's `max_choices`.",
        "seed": "Random seed. The same request with the same seed gives the same texts. The server uses it modulo 2⁶³.",
        "stop": "Text, or up to 16 texts, before which a generated text ends. The answer does not contain it.",
        "echo": "Whether each text begins with its prompt.",
        "logprobs": "Return the log-probability of each token, and those of this many most likely tokens.",
        "stream": "Whether to send the answer as server-sent events.",
        "stream_options": "Options of a stream.",
        "unknown": _UNKNOWN,
        "user": "Ignored.",
        "best_of": "Must equal `n`.",
        "suffix": "Must be empty: charloom does not support it.",
        "presence_penalty": "Must be 0: charloom does not support it.",
        "frequency_penalty": "Must be 0: charloom does not support it.",
        "logit_bias": "Must be empty: charloom does not support it.",
    },
    "StreamOptions": {"include_usage": "Whether an event with `usage` precedes the end of the stream."},
    "Completion": {
        "id": "`cmpl-` and 24 hexadecimal digits. All events of a stream have the same one.",
        "object": "",
        "created": "Time of the request, in seconds since 1970.",
        "model": "Name of the model.",
        "choices": "The texts: `n` of the first prompt, then `n` of the second, and so on. "
        "An event of a stream has one.",
        "usage": "Token counts. In a stream it is `null`, except in the event that `include_usage` asks for.",
        "seed": "The seed of the texts. Send it to get them again.",
    },
    "Choice": {
        "text": "The text. In a stream, its next piece.",
        "index": "Position among the texts of the request, from 0.",
        "logprobs": "Log-probabilities, if the request has `logprobs`.",
        "finish_reason": "`length` after `max_tokens`, `stop` at a stop text or the end of a record. "
        "In a stream it is `null` until the last piece of a text.",
    },
    "Logprobs": {
        "tokens": "The tokens. A byte that is not ASCII is written `bytes:\\xNN`.",
        "token_logprobs": "Natural logarithm of each token's probability. `null` for the first token of an echoed "
        "prompt.",
        "top_logprobs": "Per token, the most likely tokens and the token itself. `null` if `logprobs` is 0.",
        "text_offset": "Characters before each token, counted from the beginning of the prompt.",
    },
    "Usage": {
        "prompt_tokens": "Tokens of all prompts.",
        "completion_tokens": "Tokens of all generated texts.",
        "total_tokens": "The sum of both.",
    },
    "ScoreRequest": {
        "model": _MODEL,
        "input": "The text, or the texts, to score. All of them together are bounded by the server's `max_prompt`.",
        "per": "Report one score per text, also one per line, or also one per character.",
        "prompt": "Text that the model reads before each text or line, without scoring it.",
        "top_predictions": "With `per` `char`, how many of the most likely tokens to return for each position.",
        "unknown": _UNKNOWN,
    },
    "ScoreResponse": {
        "object": "",
        "model": "Name of the model.",
        "data": "One score per text, in the order of `input`.",
    },
    "TextCost": {
        "index": "Position in `input`, from 0.",
        "characters": "Number of scored characters. The end of a record counts as one.",
        "nats_per_char": "Mean over the scored characters, in nats (bits times 0.693). `null` if nothing was scored.",
        "bits_per_char": _BITS,
        "perplexity_per_char": "2 to the power of `bits_per_char`.",
        "unknown": _UNKNOWN_COUNT,
        "lines": "Scores of the lines, with `per` `line`.",
        "chars": "Scores of the characters, with `per` `char`.",
    },
    "LineCost": {
        "line": "Number of the line, from 1.",
        "characters": "Number of scored characters. The end of the line counts as one.",
        "nats": "Total, in nats.",
        "bits_per_char": _BITS,
        "peak_bits": "Mean of the three most surprising characters, in bits. An unknown character counts 20 bits.",
        "unknown": _UNKNOWN_COUNT,
        "text": "The line, without its end.",
    },
    "CharacterCosts": {
        "characters": "The scored characters.",
        "bits": "Bits of each character.",
        "top_predictions": "Per position, pairs of a token and its probability, the most likely first. "
        "`null` without `top_predictions`.",
    },
    "NextRequest": {
        "model": _MODEL,
        "prompt": "The text so far.",
        "top": "How many of the most likely tokens to return. The default is all of them.",
        "unknown": _UNKNOWN,
    },
    "NextResponse": {
        "object": "",
        "model": "Name of the model.",
        "entropy_bits": "Entropy of the distribution: the expected bits of the next token.",
        "data": "The tokens, the most likely first.",
    },
    "NextCharacter": {
        "char": "The token. A byte that is not ASCII is written `bytes:\\xNN`.",
        "prob": "Its probability.",
    },
    "ModelList": {
        "object": "",
        "data": "The models, in the order of the command line.",
    },
    "ModelCard": {
        "id": "Name of the model: that of its file, without `.safetensors`.",
        "object": "",
        "created": "Modification time of the file, in seconds since 1970.",
        "owned_by": "Always `charloom`.",
        "cell": "Type of the recurrent layers: " + ", ".join(f"`{cell}`" for cell in CELL_FACTS) + ".",
        "layers": "Number of recurrent layers.",
        "hidden": "Units per layer.",
        "parameters": "Number of weights.",
        "units": "Whether a token is a character or a byte.",
        "vocabulary": "The characters in the order of their token ids. `null` for a model of bytes.",
        "is_of_records": "Whether the model generates records, which have an end.",
        "max_tokens": "The server's `max_tokens`.",
        "max_prompt": "The server's `max_prompt`.",
    },
    "Health": {
        "live": "Always `true`.",
        "ready": "Whether the server takes requests. If not, the status is 503.",
    },
    "ProblemResponse": {"error": "What went wrong."},
    "Problem": {
        "message": "One or two sentences: what failed, the value, and what to do.",
        "type": "`invalid_request_error`, `authentication_error` (401), `permission_error` (403), `not_found_error` "
        "(404), `rate_limit_error` (429) or `server_error` (500 and above).",
        "param": "The field that the message is about.",
        "code": "The error's code, see below.",
    },
    _LIMITS: {
        "max_streams": "Texts generated at the same time. Further texts wait.",
        "max_queue": "Texts that may wait, and requests to `/v1/score` that may wait. Beyond it: 429.",
        "max_tokens": "Most tokens to generate per text.",
        "max_prompt": "Most characters of a prompt, and of all texts of one score request.",
        "max_choices": "Texts of one request: prompts times `n`.",
        "answer_bytes": "Bytes that all answers with probabilities may take while they are made. Beyond it: 429.",
        "timeout": "Seconds per request. Beyond it: 408.",
        "drain_timeout": "Seconds that running requests get at shutdown.",
        "reader_timeout": "Seconds within which a client must read some of its answer. Beyond it the server closes the "
        "connection.",
        "body_timeout": "Seconds within which the head of a request must arrive, and again its body. Beyond it: 408.",
    },
}
_DEFAULTS = {
    ("CompletionRequest", "prompt"): '`""`',
    ("CompletionRequest", "max_tokens"): f"`{_DEFAULT_TOKENS}`",
    ("CompletionRequest", "temperature"): "`1`",
    ("CompletionRequest", "top_p"): "`1`",
    ("CompletionRequest", "top_k"): "all",
    ("CompletionRequest", "n"): "`1`",
    ("CompletionRequest", "seed"): "random",
    ("CompletionRequest", "echo"): "`false`",
    ("CompletionRequest", "stream"): "`false`",
    ("StreamOptions", "include_usage"): "`false`",
    ("NextRequest", "top"): "all",
}
"""What the server uses for a field that is null."""
_OPTIONS = {parameter.name for parameter in serve.params}


def main() -> None:
    """Writes the page with its tables filled in."""
    write_bytes(PAGE, page().encode())


def page() -> str:
    """Returns the page with its tables filled in.

    Raises:
        ValueError: the page leaves out a table, or a field and its meaning do not match.
    """
    text, tables = PAGE.read_text("utf-8"), _tables()
    found = _TABLE.findall(text)
    if sorted(found) != sorted(tables):
        raise ValueError(f"the page has the tables {sorted(found)}, and should have {sorted(tables)}")
    return _TABLE.sub(lambda match: f"<!-- table: {match[1]} -->\n\n{tables[match[1]]}\n\n<!-- end of table -->", text)


def _tables() -> dict[str, str]:
    structs = _structs()
    tables = {name: "\n".join(_fields(name, *struct)) for name, struct in structs.items()}
    tables[_OPERATIONS] = "\n".join(_operations())
    tables[_LIMITS] = "\n".join(_limits())
    if sorted(tables) != sorted(MEANINGS):
        raise ValueError(f"there are meanings for {sorted(MEANINGS)}, and tables of {sorted(tables)}")
    return tables


def _meanings(table: str, names: list[str]) -> dict[str, str]:
    """Returns the meanings of a table's rows, which have these names."""
    if names != list(MEANINGS.get(table, {})):
        raise ValueError(f"{table} has {names}, and there are meanings for {list(MEANINGS.get(table, {}))}")
    return MEANINGS[table]


def _operations() -> Iterator[str]:
    documented = [operation for operation in OPERATIONS if operation.doc is not None]
    meanings = _meanings(_OPERATIONS, [operation.path for operation in documented])
    yield "| endpoint | request | response | token | purpose |"
    yield "| --- | --- | --- | --- | --- |"
    for operation in documented:
        yield f"| {' | '.join([*_operation(operation), meanings[operation.path]])} |"


def _operation(operation: Operation) -> Iterator[str]:
    assert operation.doc is not None  # the others are not shown
    yield f"`{operation.method} {operation.path}`"
    for kind in (operation.doc.request_type, operation.doc.response_type):
        names = {None: "", str: "text", dict: "object"}
        yield names[kind] if kind in names else _link(kind)
    yield "no" if operation.is_open else "yes"


def _link(kind: type) -> str:
    return f"[{kind.__name__}](#{kind.__name__.lower()})"


def _structs() -> dict[str, tuple[inspect.StructType, bool]]:
    """Returns all objects of requests and responses by name, and whether they are part of a request."""
    found: dict[str, tuple[inspect.StructType, bool]] = {}

    def add(kind: inspect.Type, is_asked: bool) -> None:
        if isinstance(kind, inspect.StructType) and kind.cls.__name__ not in found:
            found[kind.cls.__name__] = kind, is_asked
            for field in kind.fields:
                add(field.type, is_asked)
        for part in _parts(kind):
            add(part, is_asked)

    for operation in OPERATIONS:
        if operation.doc is not None:
            for kind, is_asked in ((operation.doc.request_type, True), (operation.doc.response_type, False)):
                if kind is not None:
                    add(inspect.type_info(kind), is_asked)
    add(inspect.type_info(ProblemResponse), False)
    return found


def _parts(kind: inspect.Type) -> tuple[inspect.Type, ...]:
    if isinstance(kind, inspect.Metadata):
        return (kind.type,)
    if isinstance(kind, inspect.UnionType):
        return kind.types
    if isinstance(kind, inspect.ListType):
        return (kind.item_type,)
    if isinstance(kind, inspect.TupleType):
        return kind.item_types
    if isinstance(kind, inspect.DictType):
        return kind.key_type, kind.value_type
    return ()


def _fields(name: str, struct: inspect.StructType, is_asked: bool) -> Iterator[str]:
    meanings = _meanings(name, [field.name for field in struct.fields])
    yield "| field | type | default | meaning |" if is_asked else "| field | type | meaning |"
    yield "| --- | --- | --- | --- |" if is_asked else "| --- | --- | --- |"
    for field in struct.fields:
        meaning = meanings[field.name]
        cells = [f"`{field.name}`", _typed(field.type)]
        if is_asked:
            cells.append(_default(name, field))
        elif isinstance(field.type, inspect.LiteralType) and len(field.type.values) == 1:
            meaning = f"Always `{field.type.values[0]}`."
        yield f"| {' | '.join([*cells, meaning])} |"


def _default(name: str, field: inspect.Field) -> str:
    if (name, field.name) in _DEFAULTS:
        return _DEFAULTS[name, field.name]
    if field.required:
        return "required"
    if field.default is None:
        return "none"
    return '`""`' if field.default == "" else f"`{field.default}`"


def _typed(kind: Any) -> str:
    """Returns a type in JSON's words, with its range."""
    if isinstance(kind, inspect.Metadata):
        return _typed(kind.type)
    if isinstance(kind, inspect.UnionType):
        kinds = sorted(kind.types, key=lambda one: isinstance(one, inspect.NoneType))
        return " or ".join(_typed(one) for one in kinds)
    if isinstance(kind, inspect.ListType):
        return f"array{_bounds(kind.min_length, kind.max_length, ' items')} of {_part(kind.item_type)}"
    if isinstance(kind, inspect.TupleType):
        return f"pair of {' and '.join(map(_part, kind.item_types))}"
    if isinstance(kind, inspect.DictType):
        return f"object{_bounds(kind.min_length, kind.max_length, ' members')} of {_part(kind.value_type)}"
    if isinstance(kind, inspect.LiteralType):
        return " or ".join(f"`{value}`" for value in sorted(kind.values))
    if isinstance(kind, inspect.StructType):
        return _link(kind.cls)
    if isinstance(kind, inspect.StrType):
        return f"string{_bounds(kind.min_length, kind.max_length, ' characters')}"
    if isinstance(kind, inspect.IntType):
        return f"integer{_bounds(kind.ge, kind.le)}"
    if isinstance(kind, inspect.FloatType):
        return f"number{_bounds(kind.ge, kind.le)}"
    if isinstance(kind, inspect.BoolType):
        return "boolean"
    if isinstance(kind, inspect.NoneType):
        return "null"
    raise TypeError(kind)


def _part(kind: inspect.Type) -> str:
    typed = _typed(kind)
    return f"({typed})" if " or " in typed else typed


def _bounds(least: float | None, most: float | None, unit: str = "") -> str:
    if least is None and most is None:
        return ""
    if least is None or least == most:
        return f" ({'at most ' if least is None and most else ''}{_number(most)}{unit})"
    if most is None:
        return f" (at least {_number(least)}{unit.removesuffix('s') if least == 1 else unit})"
    return f" ({_number(least)} to {_number(most)}{unit})"


def _number(value: float | None) -> str:
    powers = {2**31 - 1: "2³¹ - 1", 2**63 - 1: "2⁶³ - 1", -(2**63): "-2⁶³"}
    assert value is not None  # absent bounds are not shown
    return powers[int(value)] if int(value) in powers else f"{int(value):,}"


def _limits() -> Iterator[str]:
    meanings = _meanings(_LIMITS, [field.name for field in fields(Limits)])
    yield "| limit | option | default | meaning |"
    yield "| --- | --- | --- | --- |"
    for field in fields(Limits):
        option = f"`--{field.name.replace('_', '-')}`" if field.name in _OPTIONS else "Python only"
        default = f"{field.default:,g}" if isinstance(field.default, float) else f"{field.default:,}"
        yield f"| `{field.name}` | {option} | {default} | {meanings[field.name]} |"


if __name__ == "__main__":
    main()
