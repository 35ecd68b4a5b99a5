"""What one server takes on, so that nobody can ask it to death."""

import math
from dataclasses import dataclass

from charloom.errors import SettingError
from charloom.settings import require_count


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The bounds of a server.

    Attributes:
        max_streams: texts that are written at once; further ones wait.
        max_queue: texts that wait; a request that would make them more is refused.
        max_tokens: characters that a text may be asked for.
        max_prompt: characters of a prompt, or of a text that is scored.
        max_choices: texts that one request may ask for, all its prompts' together.
        answer_bytes: memory of all answers together that are kept until they are whole; beyond it requests are refused.
        timeout: seconds that a request may take.
        drain_timeout: seconds that running requests have to finish when the server is told to stop.
        reader_timeout: seconds in which some of an answer must be read.
        body_timeout: seconds that a request's head and its body may each take to arrive.
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
        """Bytes of a request's body: a JSON escape of a character takes up to twelve."""
        return 12 * self.max_prompt + 65_536

    @property
    def connections(self) -> int:
        """Connections that are open at once."""
        return self.max_streams + self.max_queue + 64
