"""A model as it is session: one version of a model file, with all that its texts share."""

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Integer

from charloom.errors import ModelFileError
from charloom.inference import DecoderState, DecodingBatch, NativeDecoderState, read_prompt, read_tokens
from charloom.machine import available_memory_bytes
from charloom.model import TextModel, load
from charloom.models import Network
from charloom.server.prefix_cache import PrefixCache
from charloom.settings import SamplingSettings

PREFIX_CACHE_BYTES = 64 << 20
MAX_TOP_PREDICTIONS = 20
"""For each character that is scored."""
_BYTES_PER_BYTE = 4
"""Memory that a byte of a model file takes when it is session: as read, for JAX, and packed for writing and scoring."""
_BYTES_PER_UNIT = 32
"""Memory that each unit takes for each token of a window: its gates, their inputs and its state, in float32."""
_MAX_CHUNK = 256
"""Tokens of a prompt that are read between two looks at what else there is to do, at max_tokens."""
_READING_SECONDS = 0.010
"""That this should take, however slow the network is."""


@dataclass(eq=False)
class ModelSession:
    """A model that texts are asked of.

    Attributes:
        name: by which it is asked for.
        path: of its file.
        created: when the file was written, in seconds since 1970.
        model: as it was loaded.
        network: the network as it writes.
        start_state: the state in which a text begins; None for a model of windows, which carries none on.
        prefix_cache: states behind what has been read.
        batch: what is being written now.
        step_seconds: how long a step takes, by the binary digits of how many texts make it.
        token_seconds: how long it takes to read one token of a prompt.
    """

    name: str
    path: Path
    created: int
    model: TextModel = field(repr=False)
    network: Network = field(repr=False)
    start_state: DecoderState | NativeDecoderState | None = field(repr=False)
    prefix_cache: PrefixCache = field(repr=False)
    batch: DecodingBatch = field(repr=False)
    step_seconds: dict[int, float] = field(default_factory=dict, repr=False)
    token_seconds: float = field(default=_READING_SECONDS / _MAX_CHUNK, repr=False)

    @classmethod
    def from_file(cls, name: str, path: Path) -> "ModelSession":
        """Returns the model in the file `path`, with its programs compiled, so that no request waits for that.

        Raises:
            ModelFileError: the file is missing, damaged, or of a version that is not read; there is no memory for it.
        """
        _require_memory(path, _size_of(path) * _BYTES_PER_BYTE)
        model, created = load(path), int(path.stat().st_mtime)
        network, window = model.sampling_network, model.window
        settings = model.settings
        _require_memory(path, (window or 0) * settings.layers * settings.hidden * _BYTES_PER_UNIT)
        nothing = np.zeros(window or 0, np.int32)
        state = read_prompt(network, nothing, window)
        batch = DecodingBatch.for_state(network, state)
        session = cls(
            name, path, created, model, network, None if window else state, PrefixCache(PREFIX_CACHE_BYTES), batch
        )
        session._warm_up(state)
        model.scorer(check=lambda: None).warm_up(MAX_TOP_PREDICTIONS)  # as requests are scored
        return session

    def _warm_up(self, state: DecoderState | NativeDecoderState) -> None:
        rules = [SamplingSettings(top_k=k, top_p=p) for k in (None, 1) for p in (None, 0.9)]
        for rule in (*rules, SamplingSettings(temperature=0)):
            self.batch.add(state, rule, 0, 0)
            self.batch.generate(1)
            self.batch.remove(0)
        if self.start_state is not None:
            for _ in range(2):  # the first time it is compiled
                begin = time.perf_counter()
                read_tokens(self.network, state, np.zeros(1, np.int32))
                self.token_seconds = time.perf_counter() - begin

    def cached_prefix(
        self, token_ids: Integer[np.ndarray, " time"]
    ) -> tuple[int, DecoderState | NativeDecoderState | None]:
        """Returns how many of a prompt's tokens need not be read any more, and the state behind them."""
        if self.start_state is None:
            return 0, None
        read, state = self.prefix_cache.longest(token_ids)
        return read, self.start_state if state is None else state

    def read_chunk(
        self, state: DecoderState | NativeDecoderState | None, token_ids: Integer[np.ndarray, " time"], read: int
    ) -> tuple[int, DecoderState | NativeDecoderState]:
        """Returns how many of a prompt's tokens have been read after some more, and the state behind them.

        Args:
            state: behind the first `read` tokens.
            token_ids: of the whole prompt.
            read: how many have been.
        """
        if state is None:
            return len(token_ids), read_prompt(self.network, token_ids, self.model.window)
        max_tokens = max(1, min(_MAX_CHUNK, int(_READING_SECONDS / self.token_seconds)))
        end = min(len(token_ids), read + max_tokens)
        if end == read:
            return end, state
        begin = time.perf_counter()
        state = read_tokens(self.network, state, token_ids[read:end])
        self.token_seconds += 0.2 * ((time.perf_counter() - begin) / (end - read) - self.token_seconds)
        return end, state


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # reading it will say what is wrong


def _require_memory(path: Path, needed: int) -> None:
    """Makes sure that there is memory for a model before any of it is taken: the system would end the process.

    Raises:
        ModelFileError: there is not.
    """
    free = available_memory_bytes()
    if free is not None and needed > free:
        raise ModelFileError(
            f"{path} takes about {needed / 1e9:,.1f} GB of memory to be session, and {free / 1e9:,.1f} GB are free. "
            "Serve a smaller model, or end other programs."
        )
