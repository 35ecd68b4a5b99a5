"""Memory that answers may take together while they are made and sent."""

from collections.abc import Iterator
from contextlib import contextmanager

from charloom.server.problems import ApiError


class MemoryBudget:
    """A budget of bytes over all requests.

    Attributes:
        size: bytes in all.
        used: bytes that are taken now.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.used = 0

    @contextmanager
    def reserved(self, size: int) -> Iterator[None]:
        """Takes `size` bytes until the context ends, however it ends.

        Raises:
            ApiError: there is no room for them now.
        """
        if self.used + size > self.size and self.used:  # alone, every answer has room
            raise ApiError(
                429,
                "Answers that are being made take all the memory that there is for them. Try again in a second.",
                code="answers_full",
                headers={"Retry-After": "1"},
            )
        self.used += size
        try:
            yield
        finally:
            self.used -= size
