"""`python -m benchmarks.quality.dynamic_evaluation`: compares learning rates for dynamic evaluation.

The texts are the first 1,003,854 characters of tiny Shakespeare, Nietzsche and Python's language reference. A model is
trained on each for half a minute. A row has the nats per character of the held-out last tenth, for each rate.
"""

import tempfile
from pathlib import Path

import charloom
from benchmarks.quality.trial import TEXTS, TUNED_ON, read
from charloom.data import ordered_pass
from charloom.inference import score_blocks
from charloom.runs import dynamic_score
from charloom.settings import TextSettings
from charloom.text import read_named_corpus

RATES = (1e-4, 3e-4, 1e-3, 3e-3)


def main() -> None:
    """Prints the table."""
    print(f"| | not adapted | {' | '.join(f'{rate:g}' for rate in RATES)} |\n{'| --- ' * (2 + len(RATES))}|")
    for name in ("shakespeare", "nietzsche", "reference"):
        document = str(read_named_corpus(TEXTS[name], TextSettings()).documents[0])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.txt"
            path.write_text(document[: TUNED_ON.get(name)])
            model = charloom.train(path, budget="30s")
        validation = read(name)[1]
        nats = [score_blocks(model.network, ordered_pass(validation)).nats_per_char]
        nats += [dynamic_score(model, validation, rate).nats_per_char for rate in RATES]
        print(f"| {name} | {' | '.join(f'{n:.4f}' for n in nats)} |", flush=True)


if __name__ == "__main__":
    main()
