"""`python -m benchmarks.state_resets`: the effect of zeroing states at random. Takes five minutes.

It prints the table of docs/design/batches.md.
"""

import itertools

import jax
import numpy as np

from charloom.data import ContiguousBatches, TokenStream, evaluation_pass
from charloom.inference import score_blocks
from charloom.models import Network
from charloom.settings import NetworkSettings, TextSettings, TrainingSettings
from charloom.text import Vocabulary, read_corpus
from charloom.training import Evaluation, StepPlan, TrainingLoop

SEEDS = range(4)


def main() -> None:
    """Trains one epoch with each reset probability, at the default settings and at slower ones."""
    (document,) = read_corpus(["tinyshakespeare"], TextSettings()).documents
    vocabulary = Vocabulary.of_texts([str(document)])
    stream = TokenStream.from_documents([vocabulary.encode(document)])
    # The last tenth of the text is reserved for results; decisions do not use it.
    stream, _ = stream.split(1_003_854)
    training, validation = stream.split(900_000)
    print(f"| rows, rate | reset probability | validation, {len(SEEDS)} seeds |\n| --- | --- | --- |")
    for (batch_size, rate), share in itertools.product([(16, 0.006), (32, 0.004)], [0.0, 0.01, 0.1]):
        settings = TrainingSettings(batch_size=batch_size, learning_rate=rate, state_reset_probability=share)
        batches = ContiguousBatches(training, settings.batch_size, settings.sequence_length)
        nats = []
        for seed in SEEDS:
            network = Network.init(NetworkSettings(), vocabulary.size, vocabulary.start_id, np.random.default_rng(seed))
            events = TrainingLoop(
                network,
                batches,
                validation,
                settings,
                StepPlan(((0, batches.steps_in(1)),)),
                jax.random.key(seed),
            ).events()
            last = [event for event in events if isinstance(event, Evaluation)][-1].network
            nats.append(score_blocks(last, evaluation_pass(validation)).nats_per_char)
        print(f"| {batch_size}, {rate:g} | {share:g} | {' '.join(f'{n:.3f}' for n in sorted(nats))} |", flush=True)


if __name__ == "__main__":
    main()
