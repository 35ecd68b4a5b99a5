"""Windows: pieces of equal length that are cut from a stream, one batch per step.

When shuffled, each window is a separate text. In order, the state can be carried from a row's window to its next
window: `contiguous_windows` orders the windows so that a row's windows follow one another in the text.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Int64, Integer

from charloom.data.block import Block
from charloom.data.stream import TokenStream
from charloom.errors import TooShortError


@dataclass(frozen=True)
class Windows:
    """A producer of blocks whose sequences are windows: `length` inputs, and the token after them.

    Attributes:
        stream: the stream that the windows are cut from.
        starts: the first position of each window.
        length: how many tokens a window reads.
        batch_size: how many windows a step reads.
        shuffle_seed: the seed of each epoch's order; None to use the order of `starts` in every epoch.
        last_only: whether only the last prediction of a window is scored.
        stateful: whether a row's state is carried to its next window, until the epoch ends.
        drop_last: whether an epoch's last step is dropped if it is incomplete.

    Raises:
        TooShortError: there is no window, or with `drop_last` no complete step.

    >>> stream = TokenStream.from_documents([np.arange(6)])
    >>> windows = Windows(stream, sliding_windows(stream, length=2, stride=1), length=2, batch_size=2)
    >>> windows.block(first_step=1, steps=1, capacity=1).token_ids[0].tolist()
    [[2, 3, 4], [3, 4, 5]]
    """

    stream: TokenStream
    starts: Int64[np.ndarray, " windows"]
    length: int
    batch_size: int
    shuffle_seed: int | None = None
    last_only: bool = True
    stateful: bool = False
    drop_last: bool = False

    def __post_init__(self) -> None:
        if self.steps_per_epoch == 0:
            raise TooShortError(
                f"{len(self.stream):,} characters give {len(self.starts):,} windows of {self.length}, fewer than the "
                f"{self.batch_size if self.drop_last else 1} that a step needs. Give a longer text."
            )

    @property
    def sequence_length(self) -> int:
        return self.length

    @property
    def steps_per_epoch(self) -> int:
        """How many steps it takes to read every window once."""
        windows = len(self.starts)
        return windows // self.batch_size if self.drop_last else -(-windows // self.batch_size)

    def block(self, first_step: int, steps: int, capacity: int) -> Block:
        """Returns the block of `steps` steps from `first_step` on. Rows without a window are not scored."""
        block = Block.empty(capacity, self.batch_size, self.length, steps)
        done = 0
        while done < steps:
            epoch, step = divmod(first_step + done, self.steps_per_epoch)
            count = min(steps - done, self.steps_per_epoch - step)
            rows = self._rows(epoch, step, count)
            filled = slice(done, done + count)
            starts = self.starts[np.maximum(rows, 0)]
            block.token_ids[filled] = self.stream.token_ids[starts[..., None] + np.arange(self.length + 1)]
            block.scored[filled, :, self.length - 1 if self.last_only else 0 :] = (rows >= 0)[..., None]
            block.state_resets[filled] = np.arange(step, step + count)[:, None] == 0 if self.stateful else True
            done += count
        return block

    def epoch(self, capacity: int) -> Iterator[Block]:
        """Yields blocks that read every window once, in the order of the first epoch."""
        for first in range(0, self.steps_per_epoch, capacity):
            yield self.block(first, min(capacity, self.steps_per_epoch - first), capacity)

    def _rows(self, epoch: int, step: int, count: int) -> Int64[np.ndarray, "count batch"]:
        """Returns the index of the window that each row reads in each of `count` steps; -1 for none."""
        order = np.arange(len(self.starts))
        if self.shuffle_seed is not None:
            order = _permutation(len(self.starts), self.shuffle_seed, epoch)
        rows = np.full(count * self.batch_size, -1)
        windows = order[step * self.batch_size : (step + count) * self.batch_size]
        rows[: len(windows)] = windows
        return rows.reshape(count, self.batch_size)


def sliding_windows(stream: TokenStream, length: int, stride: int) -> Int64[np.ndarray, " windows"]:
    """Returns the starts of all windows of `length` tokens that have a next token, `stride` apart.

    >>> sliding_windows(TokenStream.from_documents([np.arange(10)]), length=3, stride=3).tolist()
    [0, 3, 6]
    """
    return np.arange(0, len(stream) - length, stride)


def contiguous_windows(stream: TokenStream, length: int, batch_size: int) -> Int64[np.ndarray, " windows"]:
    """Returns the starts of windows that read `batch_size` equal parts of the text in parallel.

    Row r reads the windows r, r + `batch_size`, r + 2 `batch_size` and so on. Incomplete windows are left out.

    >>> contiguous_windows(TokenStream.from_documents([np.arange(11)]), length=2, batch_size=2).tolist()
    [0, 5, 2, 7]
    """
    row_length = len(stream) // batch_size
    windows = min(row_length // length, (len(stream) - 1 - (batch_size - 1) * row_length) // length)
    return (np.arange(windows)[:, None] * length + np.arange(batch_size) * row_length).reshape(-1)


def left_padded(
    pieces: Sequence[Integer[np.ndarray, " _"]], length: int, pad_id: int
) -> tuple[TokenStream, Int64[np.ndarray, " windows"]]:
    """Returns a stream with one window of `length` inputs per piece, and the windows' starts.

    A piece is its inputs and the token after them. Short pieces are padded on the left with `pad_id`; long pieces
    lose their beginning.

    >>> stream, starts = left_padded([np.array([4, 5, 6])], length=4, pad_id=0)
    >>> stream.token_ids.tolist(), starts.tolist()
    ([0, 0, 4, 5, 6], [0])
    """
    rows = np.full((len(pieces), length + 1), pad_id)
    for row, piece in zip(rows, pieces, strict=True):
        kept = piece[-(length + 1) :]
        row[length + 1 - len(kept) :] = kept
    stream = TokenStream.from_documents([rows.reshape(-1)])
    return stream, np.arange(len(pieces)) * (length + 1)


@lru_cache(maxsize=2)
def _permutation(count: int, seed: int, epoch: int) -> Int64[np.ndarray, " count"]:
    return np.random.default_rng([seed, epoch]).permutation(count)
