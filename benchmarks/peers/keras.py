"""Keras 3, used as in the tutorials. `KERAS_BACKEND` selects the backend."""

import json
import os
import resource
import statistics
import sys
import time

import numpy as np

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras

from benchmarks.texts import random_ids
from benchmarks.workers import memory_bytes
from benchmarks.workloads import CHARACTERS, EMBEDDING, VOCABULARY

IMPORTED = memory_bytes()
LAYERS = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "elman": keras.layers.SimpleRNN}
WINDOW = 8


def train(
    seconds: float, cell: str, layers: int, hidden: int, batch_size: int, sequence_length: int
) -> dict[str, float]:
    """Fits the tutorial's stateful network on arrays, with one-hot targets as in the tutorial."""
    begin = time.perf_counter()
    model = keras.Sequential(
        [
            keras.Input(batch_shape=(batch_size, sequence_length)),
            keras.layers.Embedding(VOCABULARY, EMBEDDING),
            *(LAYERS[cell](hidden, return_sequences=True, stateful=True) for _ in range(layers)),
            keras.layers.Dense(VOCABULARY, activation="softmax"),
        ]
    )
    model.compile(loss="categorical_crossentropy", optimizer=keras.optimizers.Adam())
    rows = CHARACTERS // (batch_size * sequence_length) * batch_size
    inputs = random_ids(rows * sequence_length, VOCABULARY).reshape(rows, sequence_length)
    targets = keras.utils.to_categorical(np.roll(inputs, -1), VOCABULARY)

    def fit(steps: int) -> float:
        cut = slice(0, min(steps * batch_size, rows))
        begin = time.perf_counter()
        model.fit(inputs[cut], targets[cut], batch_size=batch_size, epochs=1, shuffle=False, verbose=0)
        return time.perf_counter() - begin

    fit(2)
    warm = time.perf_counter()
    few = min(10, rows // batch_size)
    steps = min(max(few, round(few * seconds / fit(few))), rows // batch_size)
    return {
        "chars_per_second": steps * batch_size * sequence_length / fit(steps),
        "compile_seconds": warm - begin,
        "memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - IMPORTED,
    }


def generate(seconds: float, hidden: int, streams: int) -> dict[str, float]:
    """Calls `predict` on the last characters for each new one, as the tutorial does."""
    model = keras.Sequential(
        [
            keras.Input((WINDOW,)),
            keras.layers.Embedding(VOCABULARY, EMBEDDING),
            keras.layers.LSTM(hidden),
            keras.layers.Dense(VOCABULARY, activation="softmax"),
        ]
    )
    draw = np.random.default_rng(0)
    windows = draw.integers(0, VOCABULARY, (streams, WINDOW))
    model.predict(windows, verbose=0)
    steps, begin = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begin) < seconds:
        chances = model.predict(windows, verbose=0).astype(np.float64)
        chosen = [draw.choice(VOCABULARY, p=row / row.sum()) for row in chances]
        windows = np.column_stack([windows[:, 1:], chosen])
        steps += 1
    return {"chars_per_second": steps * streams / elapsed}


def one_to_one(epochs: int) -> dict[str, float]:
    """Trains the alphabet study's first network, one letter at a time."""
    begin = time.perf_counter()
    letters = np.arange(26)
    model = keras.Sequential([keras.Input((1, 1)), keras.layers.LSTM(32), keras.layers.Dense(26, activation="softmax")])
    model.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
    ends: list[float] = []
    model.fit(
        (letters[:-1] / 26).reshape(25, 1, 1),
        keras.utils.to_categorical(letters[1:], 26),
        epochs=epochs,
        batch_size=1,
        verbose=0,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: ends.append(time.perf_counter()))],
    )
    included = time.perf_counter() - begin
    return {
        "with compilation": included,
        # The first epoch includes compilation. The median of the others replaces it.
        "without compilation": included - (ends[0] - begin) + statistics.median(np.diff(ends).tolist()),
    }


if __name__ == "__main__":
    print(
        json.dumps(
            {"train": train, "generate": generate, "one_to_one": one_to_one}[sys.argv[1]](**json.loads(sys.argv[2]))
        )
    )
