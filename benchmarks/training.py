"""Training speed: the ladder's LSTM-512 on Nietzsche, 64 lanes of unroll 8, beside the tutorial's code in Keras.

Compilation is timed apart. Without the corpus the Python reference stands in; its vocabulary is a little larger.
"""

import json
import os
import sys
import time

import numpy as np

from benchmarks.workers import Figures, Rows, in_turn, median

LANES, UNROLL, HIDDEN, EMBEDDING = 64, 8, 512, 42
SECONDS = 12.0
ROUNDS = 3


def run() -> tuple[Figures, Rows]:
    """Returns the figures of all rounds, and the table's rows."""
    results = in_turn("benchmarks.training", ["charloom", "keras-tensorflow"], ROUNDS)
    ours, keras = (median(results[peer], "chars_per_second") for peer in results)
    rows = [
        ("training LSTM-512, 64 × 8: charloom", f"{ours:,.0f} chars/s", ""),
        ("the same: the tutorial's Keras on TensorFlow", f"{keras:,.0f} chars/s", ""),
        ("ratio", f"{ours / keras:.2f}", "1.5"),
    ]
    return {"rounds": results, "ratio": ours / keras}, rows


def text_ids() -> tuple[np.ndarray, int]:
    """Returns the text's ids and the size of its vocabulary."""
    from charloom.errors import SourceError
    from charloom.settings import TextSettings
    from charloom.text import Vocabulary, read_corpus

    settings = TextSettings(lowercase=True)
    try:
        (document,) = read_corpus(["nietzsche"], settings).documents
    except SourceError:
        (document,) = read_corpus(["python-reference"], settings).documents
    vocabulary = Vocabulary.of_texts([str(document)])
    return vocabulary.encode(document), vocabulary.size


def charloom() -> dict[str, float]:
    """Trains as `charloom train` does, and reads the clock between dispatches, host work and all."""
    import jax

    from charloom.data import Lanes, TokenStream
    from charloom.models import Network
    from charloom.settings import NetworkSettings, TrainingSettings
    from charloom.training import Progress, train_network

    token_ids, vocab_size = text_ids()
    stream = TokenStream.of_documents([token_ids])
    network = Network.init(NetworkSettings(hidden=HIDDEN, embedding=EMBEDDING), vocab_size, 0, jax.random.key(0))
    settings = TrainingSettings(lanes=LANES, unroll_length=UNROLL, learning_rate=0.001, dropout=0)
    events = train_network(
        network,
        Lanes(stream, LANES, UNROLL),
        stream.split(len(stream) - 100)[1],
        settings,
        1_000_000,
        jax.random.key(1),
    )
    begin = time.perf_counter()
    next(event for event in events if isinstance(event, Progress))
    compiled = time.perf_counter()
    for event in events:
        elapsed = time.perf_counter() - compiled
        if isinstance(event, Progress) and elapsed > SECONDS:
            characters = (event.update - 1) * LANES * UNROLL
            return {"chars_per_second": characters / elapsed, "compile_seconds": compiled - begin}
    raise AssertionError("a million updates take longer than that")


def keras_tensorflow() -> dict[str, float]:
    """The tutorial's stateful LSTM in today's Keras, fed with arrays as it feeds them."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import keras

    token_ids, vocab_size = text_ids()
    rows = (len(token_ids) // LANES - 1) // UNROLL
    lanes = token_ids[: LANES * (len(token_ids) // LANES)].reshape(LANES, -1)
    inputs = lanes[:, : rows * UNROLL].reshape(LANES, rows, UNROLL).transpose(1, 0, 2).reshape(-1, UNROLL)
    targets = lanes[:, 1 : rows * UNROLL + 1].reshape(LANES, rows, UNROLL).transpose(1, 0, 2).reshape(-1, UNROLL)
    model = keras.Sequential(
        [
            keras.Input(batch_shape=(LANES, UNROLL)),
            keras.layers.Embedding(vocab_size, EMBEDDING),
            keras.layers.LSTM(HIDDEN, return_sequences=True, stateful=True),
            keras.layers.Dense(vocab_size, activation="softmax"),
        ]
    )
    model.compile(loss="categorical_crossentropy", optimizer=keras.optimizers.Adam())
    batches = 20
    one_hot = keras.utils.to_categorical(targets, vocab_size)

    def fit(first: int, count: int) -> float:
        cut = slice(first * LANES, (first + count) * LANES)
        begin = time.perf_counter()
        model.fit(inputs[cut], one_hot[cut], batch_size=LANES, epochs=1, shuffle=False, verbose=0)
        return time.perf_counter() - begin

    compile_seconds = fit(0, 2)
    batches = max(20, round(batches * SECONDS / fit(2, batches)))
    batches = min(batches, rows - 22)
    return {"chars_per_second": batches * LANES * UNROLL / fit(22, batches), "compile_seconds": compile_seconds}


if __name__ == "__main__":
    print(json.dumps({"charloom": charloom, "keras-tensorflow": keras_tensorflow}[sys.argv[1]]()))
