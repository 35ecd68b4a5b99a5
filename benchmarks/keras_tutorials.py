"""`python -m benchmarks.keras_tutorials EXPERIMENT [EPOCHS]`: an experiment of the Nietzsche study in Keras 3.

It shows whether charloom's losses agree with Keras's. It trains a stateful experiment with the settings that `charloom
reproduce` uses, on TensorFlow, and writes the loss of each epoch to src/charloom/studies/keras.json. Keras 3 uses
sigmoids in its gates.
"""

import json
import os
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent.parent / "src" / "charloom" / "studies" / "keras.json"


def losses_of(name: str, epochs: int) -> tuple[list[float], list[float]]:
    """Returns the loss and the seconds of each of the first `epochs` epochs of the experiment `name`."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import keras

    from charloom.settings import NetworkSettings
    from charloom.studies import STUDIES
    from charloom.studies.study_data import StudyData

    experiment = STUDIES["nietzsche"].experiments[name]
    assert isinstance(experiment.model, NetworkSettings)
    data = StudyData.of(experiment)
    batch_size, length = experiment.batching.batch_size, experiment.batching.length
    steps = experiment.batching.steps_per_epoch(data.train)
    ids = experiment.batching.unshuffled(data.train, 0).block(0, steps, steps).token_ids.reshape(-1, length + 1)

    keras.utils.set_random_seed(0)
    layer = {"lstm": keras.layers.LSTM, "elman": keras.layers.SimpleRNN}[experiment.model.cell]
    model = keras.Sequential(
        [
            keras.Input(batch_shape=(batch_size, length)),
            keras.layers.Embedding(data.vocabulary.size, experiment.model.embedding),
            layer(experiment.model.hidden, return_sequences=True, stateful=True),
            keras.layers.Dense(data.vocabulary.size, activation="softmax"),
        ]
    )
    model.compile(loss="sparse_categorical_crossentropy", optimizer=keras.optimizers.Adam())
    rates = np.repeat(
        [phase.learning_rate for phase in experiment.phases], [phase.epochs for phase in experiment.phases]
    )
    losses: list[float] = []
    seconds: list[float] = []
    for rate in rates[:epochs]:
        model.optimizer.learning_rate = float(rate)
        for stateful in model.layers:
            if hasattr(stateful, "reset_state"):
                stateful.reset_state()
        begin = time.perf_counter()
        history = model.fit(ids[:, :-1], ids[:, 1:], batch_size=batch_size, epochs=1, shuffle=False, verbose=0)
        seconds.append(time.perf_counter() - begin)
        losses.append(float(history.history["loss"][0]))
        print(f"{name} epoch {len(losses)}: loss {losses[-1]:.4f}, {seconds[-1]:.1f} s", flush=True)
    return losses, seconds


def main() -> None:
    """Runs the experiment that the command line names, for as many epochs."""
    name, *rest = sys.argv[1:]
    losses, seconds = losses_of(name, int(rest[0]) if rest else 1_000)
    kept = json.loads(RESULTS.read_text())
    kept["keras"] = version("keras")
    kept["experiments"][name] = {"losses": losses, "seconds_per_epoch": statistics.median(seconds)}
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
