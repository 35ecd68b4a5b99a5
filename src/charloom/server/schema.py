"""What requests and responses are made of: JSON objects, as types that msgspec checks and OpenAPI shows.

Completions and models are as OpenAI's clients know them; the rest is charloom's own. A token is a character, or of a
model of bytes a byte.
"""

import json
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from charloom.settings import UnknownPolicy

Unknown = Annotated[
    UnknownPolicy, Meta(description="What becomes of characters that the model does not know: error, skip or replace.")
]
Model = Annotated[str | None, Meta(description="A model's name, from GET /v1/models; by default the first one.")]
TopPredictions = Annotated[int, Meta(ge=0, le=20)]
_MOST = 2**31 - 1
TokenId = Annotated[int, Meta(ge=0, le=_MOST)]
_Stop = Annotated[str, Meta(min_length=1, max_length=256)]
_Neutral = Annotated[float, Meta(ge=0, le=0)]


class StreamOptions(Struct, kw_only=True):
    """What a stream has beside the text."""

    include_usage: bool | None = None


class CompletionRequest(Struct, kw_only=True):
    """Asks for texts that go on from prompts."""

    model: Model = None
    prompt: Annotated[
        str | Annotated[list[str | TokenId | list[TokenId]], Meta(min_length=1)] | None,
        Meta(description="What the text continues: text, a list of texts, token ids, or a list of lists of token ids."),
    ] = None
    max_tokens: Annotated[int, Meta(ge=0, le=_MOST, description="Characters, or bytes; by default 16.")] | None = None
    temperature: Annotated[float, Meta(ge=0, le=1000, description="By default 1.")] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1, description="By default 1.")] | None = None
    top_k: Annotated[int, Meta(ge=1, le=_MOST)] | None = None
    n: Annotated[int, Meta(ge=1, le=_MOST, description="Texts for each prompt; by default 1.")] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: _Stop | Annotated[list[_Stop], Meta(max_length=16)] | None = None
    echo: bool | None = None
    logprobs: TopPredictions | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    unknown: Unknown = "error"
    user: str | None = None
    # What others have and charloom has not is refused, unless it would change nothing.
    best_of: Annotated[int, Meta(ge=1, le=_MOST)] | None = None
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
    """How much was read and written, in characters (or bytes)."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Completion(Struct, kw_only=True):
    """Texts. `seed` is the one that they were written with; it repeats them."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | None = None
    seed: int


class ModelCard(Struct, kw_only=True):
    """A model that is served."""

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
    max_tokens: Annotated[int, Meta(description="That a text may be asked for.")]
    max_prompt: Annotated[int, Meta(description="Characters of a prompt, at most.")]


class ModelList(Struct, kw_only=True):
    """The models that are served."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class ScoreRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """Asks what texts cost a model."""

    model: Model = None
    input: str | Annotated[list[str], Meta(min_length=1, max_length=1024)]
    per: Annotated[
        Literal["text", "line", "char"],
        Meta(description="What gets its own score: texts, lines or characters."),
    ] = "text"
    prompt: Annotated[str, Meta(description="Is read before each text or line, and not scored.")] = ""
    top_predictions: Annotated[
        TopPredictions, Meta(description="With per char: how many of the likeliest in each place.")
    ] = 0
    unknown: Unknown = "error"


class LineCost(Struct, kw_only=True, gc=False):
    """What a line cost. `peak_bits` is the mean of its three most surprising characters."""

    line: int
    characters: int
    nats: float | None
    bits_per_char: float | None
    peak_bits: float | None
    unknown: int
    text: str


class CharacterCosts(Struct, kw_only=True):
    """What each character cost, in bits, and what was expected in its place, as pairs of character and probability."""

    characters: list[str]
    bits: list[float | None]
    top_predictions: list[list[tuple[str, float | None]]] | None = None


class TextCost(Struct, kw_only=True):
    """What a text cost."""

    index: int
    characters: int
    nats_per_char: float | None
    bits_per_char: float | None
    perplexity_per_char: float | None
    unknown: int
    lines: list[LineCost] | None = None
    chars: CharacterCosts | None = None


class ScoreResponse(Struct, kw_only=True):
    """What texts cost."""

    object: Literal["score"] = "score"
    model: str
    data: list[TextCost]


class NextRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """Asks what comes next."""

    model: Model = None
    prompt: str = ""
    top: (
        Annotated[int, Meta(ge=1, le=_MOST, description="How many of the likeliest characters; by default all.")] | None
    ) = None
    unknown: Unknown = "error"


class NextCharacter(Struct, kw_only=True, gc=False):
    """A character, and how likely it is to come next."""

    char: str
    prob: float | None


class NextResponse(Struct, kw_only=True):
    """What comes next, the likeliest first; `entropy_bits` is the surprise that is to be expected."""

    object: Literal["next"] = "next"
    model: str
    entropy_bits: float | None
    data: list[NextCharacter]


class Health(Struct, kw_only=True):
    """Whether the server lives, and takes requests."""

    live: bool
    ready: bool


class Problem(Struct, kw_only=True):
    """What was wrong."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ProblemResponse(Struct, kw_only=True):
    """Any answer that is no success."""

    error: Problem


def encoded(answer: Any) -> bytes:
    """Returns an answer as JSON. What UTF-8 cannot say (half of a surrogate pair) is escaped.

    >>> encoded({"text": "\\ud800"})
    b'{"text": "\\\\ud800"}'
    """
    try:
        return msgspec.json.encode(answer)
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(answer), allow_nan=False).encode()
