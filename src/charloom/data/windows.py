"""Windows: pieces of one length, gathered as indices from a stream, a batch of them an update.

Shuffled, each window is a text of its own. In order, the state can be carried from a lane's window to its
next: `lane_rows` orders windows so that these follow one another in the text.
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
    """A producer of blocks whose unrolls are windows: `length` inputs, and the token after them.

    Attributes:
        stream: where the windows are cut from.
        starts: each window's first position.
        length: tokens that a window reads.
        lanes: windows an update.
        shuffle_seed: of each epoch's order; None for the order of `starts`, every epoch.
        last_only: whether only a window's last prediction counts.
        carried: whether a lane's state is carried on to its next window, up to the epoch's end.
        drop_ragged: whether the windows that do not fill an epoch's last update are left out.

    Raises:
        TooShortError: there is no window, or with `drop_ragged` no full update.

    >>> stream = TokenStream.of_documents([np.arange(6)])
    >>> windows = Windows(stream, sliding(stream, length=2, stride=1), length=2, lanes=2)
    >>> windows.block(first_update=1, updates=1, capacity=1).token_ids[0].tolist()
    [[2, 3, 4], [3, 4, 5]]
    """

    stream: TokenStream
    starts: Int64[np.ndarray, " windows"]
    length: int
    lanes: int
    shuffle_seed: int | None = None
    last_only: bool = True
    carried: bool = False
    drop_ragged: bool = False

    def __post_init__(self) -> None:
        if self.updates_an_epoch == 0:
            raise TooShortError(
                f"{len(self.stream):,} characters give {len(self.starts):,} windows of {self.length}, fewer than the "
                f"{self.lanes if self.drop_ragged else 1} that an update needs. Give a longer text."
            )

    @property
    def unroll_length(self) -> int:
        return self.length

    @property
    def updates_an_epoch(self) -> int:
        """How many updates read every window once."""
        windows = len(self.starts)
        return windows // self.lanes if self.drop_ragged else -(-windows // self.lanes)

    def block(self, first_update: int, updates: int, capacity: int) -> Block:
        """Returns the block of `updates` updates from `first_update` on; what an epoch's last lacks is not scored."""
        block = Block.empty(capacity, self.lanes, self.length, updates)
        done = 0
        while done < updates:
            epoch, update = divmod(first_update + done, self.updates_an_epoch)
            count = min(updates - done, self.updates_an_epoch - update)
            rows = self._rows(epoch, update, count)
            filled = slice(done, done + count)
            starts = self.starts[np.maximum(rows, 0)]
            block.token_ids[filled] = self.stream.token_ids[starts[..., None] + np.arange(self.length + 1)]
            block.scored[filled, :, self.length - 1 if self.last_only else 0 :] = (rows >= 0)[..., None]
            block.cold[filled] = np.arange(update, update + count)[:, None] == 0 if self.carried else True
            done += count
        return block

    def epoch(self, capacity: int) -> Iterator[Block]:
        """Yields blocks that read every window once, in the first epoch's order."""
        for first in range(0, self.updates_an_epoch, capacity):
            yield self.block(first, min(capacity, self.updates_an_epoch - first), capacity)

    def _rows(self, epoch: int, update: int, count: int) -> Int64[np.ndarray, "count lanes"]:
        """Returns which window each lane of `count` updates reads, -1 for none."""
        order = np.arange(len(self.starts))
        if self.shuffle_seed is not None:
            order = _permutation(len(self.starts), self.shuffle_seed, epoch)
        rows = np.full(count * self.lanes, -1)
        taken = order[update * self.lanes : (update + count) * self.lanes]
        rows[: len(taken)] = taken
        return rows.reshape(count, self.lanes)


def sliding(stream: TokenStream, length: int, stride: int) -> Int64[np.ndarray, " windows"]:
    """Returns the starts of all windows of `length` that have a token after them, `stride` apart.

    >>> sliding(TokenStream.of_documents([np.arange(10)]), length=3, stride=3).tolist()
    [0, 3, 6]
    """
    return np.arange(0, len(stream) - length, stride)


def lane_rows(stream: TokenStream, length: int, lanes: int) -> Int64[np.ndarray, " windows"]:
    """Returns the starts of windows that read each of `lanes` equal parts of the text side by side.

    Lane l's windows are rows l, l + `lanes`, l + 2 `lanes` and so on; what does not fill a window is left out.

    >>> lane_rows(TokenStream.of_documents([np.arange(11)]), length=2, lanes=2).tolist()
    [0, 5, 2, 7]
    """
    a_lane = len(stream) // lanes
    windows = min(a_lane // length, (len(stream) - 1 - (lanes - 1) * a_lane) // length)
    return (np.arange(windows)[:, None] * length + np.arange(lanes) * a_lane).reshape(-1)


def left_padded(
    pieces: Sequence[Integer[np.ndarray, " _"]], length: int, pad_id: int
) -> tuple[TokenStream, Int64[np.ndarray, " windows"]]:
    """Returns a stream of windows of `length`, one for each piece, and their starts.

    A piece is its inputs and the token after them; short ones are filled up from the left with `pad_id`, long
    ones lose their beginning.

    >>> stream, starts = left_padded([np.array([4, 5, 6])], length=4, pad_id=0)
    >>> stream.token_ids.tolist(), starts.tolist()
    ([0, 0, 4, 5, 6], [0])
    """
    rows = np.full((len(pieces), length + 1), pad_id)
    for row, piece in zip(rows, pieces, strict=True):
        kept = piece[-(length + 1) :]
        row[length + 1 - len(kept) :] = kept
    stream = TokenStream.of_documents([rows.reshape(-1)])
    return stream, np.arange(len(pieces)) * (length + 1)


@lru_cache(maxsize=2)
def _permutation(count: int, seed: int, epoch: int) -> Int64[np.ndarray, " count"]:
    return np.random.default_rng([seed, epoch]).permutation(count)
