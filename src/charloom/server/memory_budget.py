"""A budget for the memory of all responses in progress."""

from collections.abc import Iterator
from contextlib import contextmanager

from charloom.server.problems import ApiError


class MemoryBudget:
    """A budget of bytes that all requests share.

    Attributes:
        size: the budget in bytes.
        used: bytes in use now.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.used = 0

    @contextmanager
    def reserved(self, size: int) -> Iterator[None]:
        """Reserves `size` bytes until the context ends.

        Raises:
            ApiError: the budget has no room for them now.
        """
        if self.used + size > self.size and self.used:  # a single response always fits
            raise ApiError(
                429,
                "The memory for responses in progress is full. Try again in a second.",
                code="answers_full",
                headers={"Retry-After": "1"},
            )
        self.used += size
        try:
            yield
        finally:
            self.used -= size
