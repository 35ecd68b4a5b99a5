"""`python -m benchmarks.quality.trial SECONDS [SETTING=VALUE...]`: trains for a number of seconds and saves the result.

A setting is a field of `laboratory.Candidate`, or `text`, which is one of:

- shakespeare: the first 1,003,854 characters of tiny Shakespeare. Trials never use the last 111,540, which are for the
  final table.
- nietzsche.
- reference: Python's language reference.
- library: the modules of Python's library, a folder of source code.
- names: records.

The last tenth of the text is held out. Of names, 1,000 records are held out with another seed than in the final table,
and their copies stay in the training part. The result is the score of the trained weights, and of their averages, on
the held-out part.

The seconds count only training, at the speed that the network had when it was first measured (speeds.json). A busy
machine thus makes the same number of steps. `processor` names the processor whose speed counts, so that a GPU makes as
many steps as that processor would. Results are appended to trials.jsonl next to this file.
"""

import json
import sys
import sysconfig
import time
from dataclasses import asdict, fields
from datetime import date
from pathlib import Path
from typing import Any

import jax

from benchmarks.quality.laboratory import Candidate, Training, result_of
from charloom.data import TokenStream
from charloom.machine import processor_name
from charloom.runs.dataset_split import split_corpus
from charloom.settings import TextSettings, TrainingSettings
from charloom.text import Corpus, read_corpus

TRIALS = Path(__file__).with_name("trials.jsonl")
SPEEDS = Path(__file__).with_name("speeds.json")
TEXTS = {
    "shakespeare": "tinyshakespeare",
    "nietzsche": "nietzsche",
    "reference": "python-reference",
    "names": "names",
    "library": f"{sysconfig.get_path('stdlib')}/*.py",
}
TUNED_ON = {"shakespeare": 1_003_854}
"""Number of characters, from the beginning, that trials may use."""
_SPEED_SECONDS = 6.0


def main() -> None:
    """Runs the trial described on the command line."""
    seconds = float(sys.argv[1])
    asked = dict(argument.split("=") for argument in sys.argv[2:])
    name, processor = asked.pop("text", "shakespeare"), asked.pop("processor", processor_name())
    candidate = Candidate(
        **{field.name: _value(asked.pop(field.name)) for field in fields(Candidate) if field.name in asked}
    )
    if asked:
        sys.exit(f"unknown settings: {', '.join(asked)}")
    train, validation, vocab_size, start_id = read(name)
    speed = speed_of(processor, candidate, train, vocab_size, start_id)
    steps = max(1, round(seconds * speed / (candidate.batch_size * candidate.sequence_length)))
    result = result_of(candidate, steps, train, validation, vocab_size, start_id)
    changed = {key: value for key, value in asdict(candidate).items() if value != getattr(Candidate(), key)}
    made = {"device": jax.devices()[0].device_kind, "date": date.today().isoformat()}
    line = {"text": name, "seconds": seconds, **changed, **result, **made}
    with TRIALS.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line), flush=True)


def read(name: str) -> tuple[TokenStream, TokenStream, int, int | None]:
    """Returns the parts of a text, the size of its vocabulary, and its start token."""
    text = TextSettings(delimiter="\n" if name == "names" else None)
    corpus = read_corpus([TEXTS[name]], text)
    if name in TUNED_ON:
        corpus = Corpus(corpus.name, (str(corpus.documents[0])[: TUNED_ON[name]],), corpus.sha256)
    held_out = TrainingSettings(validation=1000, seed=1) if name == "names" else TrainingSettings()
    parts = split_corpus(corpus, text, held_out)
    return parts.train, parts.validation, parts.vocabulary.size, parts.vocabulary.start_id


def speed_of(processor: str, candidate: Candidate, train: TokenStream, vocab_size: int, start_id: int | None) -> float:
    """Returns the training speed in characters per second on `processor`; measures it if it is not in speeds.json."""
    speeds: dict[str, float] = json.loads(SPEEDS.read_text()) if SPEEDS.exists() else {}
    shape = f"{candidate.layers} x {candidate.hidden}, {candidate.batch_size} x {candidate.sequence_length}"
    extras = [name for name in ("weight_dropout", "skips", "step_dropout") if getattr(candidate, name)]
    key = " ".join([processor, "|", shape, *extras])
    if key not in speeds:
        if processor != processor_name():
            sys.exit(f"{SPEEDS.name} has no speed for {key}, and this machine has another processor.")
        speeds[key] = round(_measured(candidate, train, vocab_size, start_id))
        SPEEDS.write_text(json.dumps(speeds, indent=1, sort_keys=True) + "\n")
    return speeds[key]


def _measured(candidate: Candidate, train: TokenStream, vocab_size: int, start_id: int | None) -> float:
    training = Training(candidate, train, vocab_size, start_id)
    begin, first = 0.0, 0
    for done, _ in training.run(1_000_000):
        now = time.perf_counter()
        if not begin:  # the first call compiles
            begin, first = now, done
        elif now - begin > _SPEED_SECONDS:
            return (done - first) * candidate.batch_size * candidate.sequence_length / (now - begin)
    raise AssertionError("training ended before it was measured")


def _value(text: str) -> Any:
    return json.loads(text) if text[0] in "0123456789[tf" else text


if __name__ == "__main__":
    main()
