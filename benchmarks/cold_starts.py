"""What zeroing a lane's state now and then is worth: `python -m benchmarks.cold_starts` prints the table of docs/design/lanes.md."""

import jax
from charloom.data import Lanes, TokenStream, evaluation_pass, ordered_pass
from charloom.inference import mean_nats
from charloom.models import Network
from charloom.settings import NetworkSettings, TextSettings, TrainingSettings
from charloom.text import Vocabulary, read_corpus
from charloom.training import Evaluation, train_network


def main() -> None:
    """Trains one epoch with each share of cold starts."""
    (document,) = read_corpus(["tinyshakespeare"], TextSettings()).documents
    vocabulary = Vocabulary.of_texts([str(document)])
    stream = TokenStream.of_documents([vocabulary.encode(document)])
    # The last tenth of the text is for results, not for decisions.
    stream, _ = stream.split(1_003_854)
    training, validation = stream.split(900_000)
    beginning, _ = validation.split(512)
    print("| share | validation | its first 512 characters |\n| --- | --- | --- |")
    for share in (0.0, 0.01, 0.1):
        settings = TrainingSettings(cold_starts=share)
        lanes = Lanes(training, settings.lanes, settings.unroll_length)
        network = Network.init(NetworkSettings(), vocabulary.size, vocabulary.start_id, jax.random.key(0))
        events = train_network(network, lanes, validation, settings, lanes.updates_in(1), jax.random.key(1))
        last = [event for event in events if isinstance(event, Evaluation)][-1].network
        everywhere, first = mean_nats(last, evaluation_pass(validation)), mean_nats(last, ordered_pass(beginning))
        print(f"| {share:g} | {everywhere:.3f} | {first:.3f} |", flush=True)


if __name__ == "__main__":
    main()
