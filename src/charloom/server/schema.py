"""Requests and responses: JSON objects as types, which msgspec validates and OpenAPI documents.

Completions and models follow OpenAI's API; the rest is charloom's own.
A token is a character, or a byte for a model of bytes.
"""

import json
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from charloom.settings import UnknownPolicy

Unknown = Annotated[
    UnknownPolicy, Meta(description="What to do with characters that the model does not know: error, skip or replace.")
]
Model = Annotated[str | None, Meta(description="Name of a model from GET /v1/models; the first one by default.")]
TopPredictions = Annotated[int, Meta(ge=0, le=20)]
_MAX_INT = 2**31 - 1
TokenId = Annotated[int, Meta(ge=0, le=_MAX_INT)]
_Stop = Annotated[str, Meta(min_length=1, max_length=256)]
_Neutral = Annotated[float, Meta(ge=0, le=0)]


class StreamOptions(Struct, kw_only=True):
    """Options of a stream."""

    include_usage: bool | None = None


class CompletionRequest(Struct, kw_only=True):
    """A request for texts that continue prompts."""

    model: Model = None
    prompt: Annotated[
        str | Annotated[list[str | TokenId | list[TokenId]], Meta(min_length=1)] | None,
        Meta(description="A text, a list of texts, token ids, or a list of lists of token ids."),
    ] = None
    max_tokens: (
        Annotated[int, Meta(ge=0, le=_MAX_INT, description="Number of characters, or bytes; 16 by default.")] | None
    ) = None
    temperature: Annotated[float, Meta(ge=0, le=1000, description="1 by default.")] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1, description="1 by default.")] | None = None
    top_k: Annotated[int, Meta(ge=1, le=_MAX_INT)] | None = None
    n: Annotated[int, Meta(ge=1, le=_MAX_INT, description="Number of texts per prompt; 1 by default.")] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: _Stop | Annotated[list[_Stop], Meta(max_length=16)] | None = None
    echo: bool | None = None
    logprobs: TopPredictions | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    unknown: Unknown = "error"
    user: str | None = None
    # OpenAI's fields that charloom does not support are refused, unless they change nothing.
    best_of: Annotated[int, Meta(ge=1, le=_MAX_INT)] | None = None
    suffix: Annotated[str, Meta(max_length=0)] | None = None
    presence_penalty: _Neutral | None = None
    frequency_penalty: _Neutral | None = None
    logit_bias: Annotated[dict[str, float], Meta(max_length=0)] | None = None


class Logprobs(Struct, kw_only=True):
    """Natural logarithms of the probabilities of a text's tokens."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float | None] | None] | None
    text_offset: list[int]


class Choice(Struct, kw_only=True):
    """One text, or a piece of it."""

    text: str
    index: int
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None


class Usage(Struct, kw_only=True):
    """Numbers of characters (or bytes) that were read and generated."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Completion(Struct, kw_only=True):
    """Generated texts. A request with the same `seed` repeats them."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | None = None
    seed: int


class ModelCard(Struct, kw_only=True):
    """A model of the server."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    cell: str
    layers: int
    hidden: int
    parameters: int
    units: Literal["chars", "bytes"]
    vocabulary: str | None
    is_of_records: bool
    max_tokens: Annotated[int, Meta(description="Maximum length of a generated text.")]
    max_prompt: Annotated[int, Meta(description="Maximum length of a prompt in characters.")]


class ModelList(Struct, kw_only=True):
    """The models of the server."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class ScoreRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """A request to score texts."""

    model: Model = None
    input: str | Annotated[list[str], Meta(min_length=1, max_length=1024)]
    per: Annotated[
        Literal["text", "line", "char"],
        Meta(description="What to score separately: texts, lines or characters."),
    ] = "text"
    prompt: Annotated[str, Meta(description="Read before each text or line, and not scored.")] = ""
    top_predictions: Annotated[
        TopPredictions, Meta(description="With per char: number of most likely tokens per position.")
    ] = 0
    unknown: Unknown = "error"


class LineCost(Struct, kw_only=True, gc=False):
    """The score of a line. `peak_bits` is the mean of its three most surprising characters."""

    line: int
    characters: int
    nats: float | None
    bits_per_char: float | None
    peak_bits: float | None
    unknown: int
    text: str


class CharacterCosts(Struct, kw_only=True):
    """The score of each character in bits, and the top predictions there: pairs of character and probability."""

    characters: list[str]
    bits: list[float | None]
    top_predictions: list[list[tuple[str, float | None]]] | None = None


class TextCost(Struct, kw_only=True):
    """The score of a text."""

    index: int
    characters: int
    nats_per_char: float | None
    bits_per_char: float | None
    perplexity_per_char: float | None
    unknown: int
    lines: list[LineCost] | None = None
    chars: CharacterCosts | None = None


class ScoreResponse(Struct, kw_only=True):
    """The scores of texts."""

    object: Literal["score"] = "score"
    model: str
    data: list[TextCost]


class NextRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """A request to predict the next character."""

    model: Model = None
    prompt: str = ""
    top: (
        Annotated[int, Meta(ge=1, le=_MAX_INT, description="Number of characters to return; all by default.")] | None
    ) = None
    unknown: Unknown = "error"


class NextCharacter(Struct, kw_only=True, gc=False):
    """A character and its probability of being next."""

    char: str
    prob: float | None


class NextResponse(Struct, kw_only=True):
    """The next characters, the most likely first. `entropy_bits` is the expected surprise."""

    object: Literal["next"] = "next"
    model: str
    entropy_bits: float | None
    data: list[NextCharacter]


class Health(Struct, kw_only=True):
    """Whether the server is live, and ready for requests."""

    live: bool
    ready: bool


class Problem(Struct, kw_only=True):
    """The description of an error."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ProblemResponse(Struct, kw_only=True):
    """An error response."""

    error: Problem


def encoded(response: Any) -> bytes:
    """Returns a response as JSON. Unpaired surrogates, which UTF-8 cannot represent, are escaped.

    >>> encoded({"text": "\\ud800"})
    b'{"text": "\\\\ud800"}'
    """
    try:
        return msgspec.json.encode(response)
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(response), allow_nan=False).encode()
