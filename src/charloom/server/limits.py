"""The limits of a server, so that clients cannot overload it."""

import math
from dataclasses import dataclass

from charloom.errors import SettingError
from charloom.settings import require_count


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of a server.

    Attributes:
        max_streams: texts that are generated at once; further ones wait.
        max_queue: texts that may wait; a request that exceeds it is refused.
        max_tokens: maximum length of a generated text, in characters.
        max_prompt: maximum length of a prompt, or of all texts of a score request, in characters.
        max_choices: maximum number of texts per request, over all its prompts.
        answer_bytes: memory for all responses that are kept until they are complete; requests beyond it are refused.
        timeout: seconds that a request may take.
        drain_timeout: seconds for running requests to finish when the server stops.
        reader_timeout: seconds within which a client must read some of a response.
        body_timeout: seconds within which a request's head must arrive, and again its body.
    """

    max_streams: int = 1024
    max_queue: int = 1024
    max_tokens: int = 32_768
    max_prompt: int = 65_536
    max_choices: int = 128
    answer_bytes: int = 268_435_456
    timeout: float = 300.0
    drain_timeout: float = 30.0
    reader_timeout: float = 60.0
    body_timeout: float = 20.0

    def __post_init__(self) -> None:
        for name in ("max_streams", "max_queue", "max_tokens", "max_prompt", "max_choices", "answer_bytes"):
            require_count(name, getattr(self, name))
        for name in ("timeout", "drain_timeout", "reader_timeout", "body_timeout"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise SettingError(name, f"must be a number of seconds above 0, got {value!r}")

    @property
    def body(self) -> int:
        """Maximum size of a request's body in bytes. A JSON escape of a character takes up to twelve."""
        return 12 * self.max_prompt + 65_536

    @property
    def connections(self) -> int:
        """Maximum number of open connections."""
        return self.max_streams + self.max_queue + 64
