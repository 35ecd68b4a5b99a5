"""A cache of the states after texts that have been read, for later texts with the same prefix."""

from bisect import bisect_right, insort
from collections import Counter, OrderedDict
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Integer, UInt64

from charloom.inference import DecoderState, NativeDecoderState

_BASE = 0x9E3779B97F4A7C15  # odd, with its bits well mixed


class _Entry(NamedTuple):
    token_ids: bytes
    state: DecoderState | NativeDecoderState
    size: int


class PrefixCache:
    """A least recently used cache of states, by the tokens that led to them.

    Each prefix of a text has a hash, a sum of powers that NumPy computes at once. The longest match is also compared
    token by token, so that crafted texts with equal hashes are not confused.

    Attributes:
        hits: number of lookups that found a prefix.
        misses: number of lookups that found none.

    Args:
        max_bytes: maximum size of states and tokens.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._size = 0
        self._entries: OrderedDict[tuple[int, int], _Entry] = OrderedDict()
        self._counts: Counter[int] = Counter()  # number of entries of each length
        self._lengths: list[int] = []  # lengths of all entries, sorted
        self._powers = np.ones(1, np.uint64)
        self.hits = self.misses = 0

    @property
    def size(self) -> int:
        """Size of all entries in bytes."""
        return self._size

    def __len__(self) -> int:
        return len(self._entries)

    def longest(self, token_ids: Integer[np.ndarray, " time"]) -> tuple[int, DecoderState | NativeDecoderState | None]:
        """Returns the length of the longest cached prefix and the state after it; 0 and None if there is none."""
        hashes = self._hashes(token_ids)
        for length in reversed(self._lengths[: bisect_right(self._lengths, len(token_ids))]):
            entry = self._entries.get(key := (length, int(hashes[length])))
            if entry is not None and entry.token_ids == _bytes(token_ids[:length]):
                self._entries.move_to_end(key)
                self.hits += 1
                return length, entry.state
        self.misses += 1
        return 0, None

    def put(self, token_ids: Integer[np.ndarray, " time"], state: DecoderState | NativeDecoderState) -> None:
        """Caches the state after `token_ids`."""
        key = (len(token_ids), int(self._hashes(token_ids)[-1]))
        self._remove(key)
        data = _bytes(token_ids)
        # Without the projection table, which all states share.
        arrays = state.streams if isinstance(state, NativeDecoderState) else state[1:]
        size = len(data) + sum(leaf.nbytes for leaf in jax.tree.leaves(arrays))
        if size > self._max_bytes:
            return
        self._entries[key] = _Entry(data, state, size)
        self._counts[key[0]] += 1
        if self._counts[key[0]] == 1:
            insort(self._lengths, key[0])
        self._size += size
        while self._size > self._max_bytes:
            self._remove(next(iter(self._entries)))

    def _remove(self, key: tuple[int, int]) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        self._size -= entry.size
        self._counts[key[0]] -= 1
        if not self._counts[key[0]]:
            del self._counts[key[0]]
            self._lengths.remove(key[0])

    def _hashes(self, token_ids: Integer[np.ndarray, " time"]) -> UInt64[np.ndarray, " time_plus_1"]:
        """Returns the hash of each prefix, beginning with the empty one."""
        while len(self._powers) <= len(token_ids):
            step = np.uint64(pow(_BASE, len(self._powers), 1 << 64))
            self._powers = np.concatenate([self._powers, self._powers * step])
        terms = (token_ids.astype(np.uint64) + np.uint64(1)) * self._powers[: len(token_ids)]
        return np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)])


def _bytes(token_ids: Integer[np.ndarray, " time"]) -> bytes:
    return np.asarray(token_ids, np.int32).tobytes()
