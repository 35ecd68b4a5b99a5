"""`python -m benchmarks.quality.results [RUN...]`: measures runs with a budget, and updates the tables of README.md.

RUN is one of:

- `shakespeare-77s`, `shakespeare-10m`, `shakespeare-1h`: trains on the first 1,003,854 characters of tiny Shakespeare
  and scores the last 111,540, with the commands that users have.
- `makemore-2m`: names, with 1,000 records held out. Copies of them stay in the training part, as in makemore.
- `TEXT-BUDGET`: a named text and 30s, 2m or 10m. An n-gram model and compressors score its held-out part too.

Results are kept in results.json next to this file. Without RUN, only the tables are updated. Run it on a machine that
does nothing else.
"""

import json
import lzma
import math
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zstandard

from benchmarks.quality.ngram import NgramModel
from charloom.machine import available_cores, processor_name
from charloom.model import TextModel, load
from charloom.runs.dataset_split import split_corpus
from charloom.settings import TextSettings, TrainingSettings
from charloom.text import read_named_corpus

RESULTS = Path(__file__).with_name("results.json")
README = Path(__file__).parents[2] / "README.md"
TRAINED_ON = 1_003_854
_LN_2 = math.log(2)


class Compared(NamedTuple):
    """What a run of charloom is compared with, in nats per character.

    Attributes:
        what: label of the run in the table.
        measured: the figure of another program that we ran, and its name; None if there is none.
        published: figures that others published, each with its source.
    """

    what: str
    measured: tuple[float, str] | None
    published: tuple[tuple[float, str], ...]


_GITHUB = "https://github.com/karpathy"
COMPARED = {
    "shakespeare-77s": Compared(
        "tiny Shakespeare, 77 s", (1.886, f"[nanoGPT]({_GITHUB}/nanoGPT)'s recipe for a CPU, 77 s"), ()
    ),
    "shakespeare-10m": Compared(
        "tiny Shakespeare, 10 min", None, ((1.4697, f"[nanoGPT]({_GITHUB}/nanoGPT), 3 min on an A100"),)
    ),
    "shakespeare-1h": Compared(
        "tiny Shakespeare, 1 h",
        None,
        (
            (1.547, "a transformer"),
            (1.548, "minGRU, both on a GPU ([Feng et al., 2024](https://arxiv.org/abs/2410.01201))"),
        ),
    ),
    "makemore-2m": Compared("names, 2 min", None, ((1.92, f"[makemore]({_GITHUB}/makemore)'s transformer, about"),)),
}
TEXTS = ("tinyshakespeare", "nietzsche", "names", "python-reference")
BUDGETS = ("30s", "2m", "10m")


def main() -> None:
    """Measures the runs named on the command line, and prints the tables."""
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for run in sys.argv[1:]:
        print(f"{run} …", file=sys.stderr)
        results[run] = measured(run) | {
            "processor": f"{processor_name()}, {available_cores()} cores",
            "date": date.today().isoformat(),
        }
        RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    README.write_text(with_tables(README.read_text(), results))
    print(budget_table(results), text_table(results), sep="\n\n")


def with_tables(page: str, results: dict[str, Any]) -> str:
    """Returns `page` with the tables inserted between their marks."""
    for mark, table in (("budgets", budget_table(results)), ("texts", text_table(results))):
        before, _, rest = page.partition(f"<!-- {mark} -->\n")
        page = f"{before}<!-- {mark} -->\n{table}\n<!-- end of {mark} -->{rest.partition(f'<!-- end of {mark} -->')[2]}"
    return page


def measured(run: str) -> dict[str, Any]:
    """Returns the results of a run."""
    name, _, budget = run.rpartition("-")
    with tempfile.TemporaryDirectory() as folder:
        model = str(Path(folder) / "model.safetensors")
        if name == "shakespeare":
            text = str(read_named_corpus("tinyshakespeare", TextSettings()).documents[0])
            train, rest = Path(folder) / "train.txt", Path(folder) / "rest.txt"
            train.write_text(text[:TRAINED_ON])
            rest.write_text(text[TRAINED_ON:])
            # Validation uses text that training then lacks, right before the scored part. A tenth would be too much.
            trained = charloom("train", str(train), "--validation", "20000", "--out", model, "--budget", budget)
            return trained | charloom("score", model, str(rest), "--dynamic-evaluation")
        if run == "makemore-2m":
            options = ("--records", "--validation", "1000")
            trained = charloom("train", "names", *options, "--out", model, "--budget", budget)
            return trained | of_held_out_names(load(model))
        if name not in TEXTS or budget not in BUDGETS:
            sys.exit(f"unknown run {run!r}: the first lines of {__file__} list the runs")
        records = ("--records",) if name == "names" else ()
        return charloom("train", name, *records, "--out", model, "--budget", budget) | baselines(name)


def charloom(*arguments: str) -> dict[str, Any]:
    """Returns the JSON report of a charloom command."""
    command = [sys.executable, "-m", "charloom", *arguments, "--json"]
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    report.pop("model", None)  # a temporary path
    return report


def of_held_out_names(model: TextModel) -> dict[str, float]:
    """Returns the nats per character of the held-out names, and their standard error."""
    settings = TextSettings(delimiter="\n")
    held_out = TrainingSettings(validation=1000)
    parts = split_corpus(read_named_corpus("names", settings), settings, held_out)
    names = (str(parts.vocabulary.decode(name)).removesuffix("\n") for name in parts.validation.documents)
    scores = model.score_many(names)
    nats = np.array([score.total_nats for score in scores])
    characters = np.array([score.characters for score in scores])
    return {"nats_per_char": float(nats.sum() / characters.sum()), "standard_error": standard_error(nats, characters)}


def standard_error(nats: np.ndarray, characters: np.ndarray) -> float:
    """Returns the standard error of the nats per character of randomly drawn records, a ratio of two sums."""
    off = nats - characters * nats.sum() / characters.sum()
    return float(np.sqrt((off**2).sum()) / characters.sum())


def baselines(name: str) -> dict[str, float]:
    """Returns the bits per held-out character of an n-gram model and of compressors that read the training part first.

    For a compressor, this is the size of the whole compressed text minus that of the compressed training part.
    """
    settings = TextSettings(delimiter="\n" if name == "names" else None)
    parts = split_corpus(read_named_corpus(name, settings), settings, TrainingSettings())
    train, held_out = (parts.vocabulary.decode(stream.token_ids) for stream in (parts.train, parts.validation))

    def of_compressor(size: Any) -> float:
        return 8 * (size((train + held_out).encode()) - size(train.encode())) / len(held_out)

    zstd = zstandard.ZstdCompressor(level=22)
    bits = NgramModel(train, 5, train + held_out).bits(held_out, before=train[-4:])
    return {
        "5-gram": sum(bits) / len(bits),
        "xz": of_compressor(lambda data: len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))),
        "zstd": of_compressor(lambda data: len(zstd.compress(data))),
    }


def budget_table(results: dict[str, Any]) -> str:
    """Returns a Markdown table of the runs with a figure to compare with, in bits per character."""
    lines = [
        "| text and time | charloom | others, run by us | published by others |",
        "| --- | --- | --- | --- |",
    ]
    for run, compared in COMPARED.items():
        if run in results:
            of = results[run]
            bits = f"{of['nats_per_char'] / _LN_2:.3f}"
            bits = f"{bits} ± {of['standard_error'] / _LN_2:.3f}" if "standard_error" in of else f"**{bits}**"
            measured = (
                "" if compared.measured is None else f"{compared.measured[0] / _LN_2:.3f}: {compared.measured[1]}"
            )
            published = "; ".join(f"{nats / _LN_2:.3f}: {source}" for nats, source in compared.published)
            lines.append(f"| {compared.what} | {bits} | {measured} | {published} |")
    return "\n".join(lines)


def text_table(results: dict[str, Any]) -> str:
    """Returns a Markdown table of bits per character for the named texts."""
    others = ("5-gram", "xz", "zstd")
    lines = [f"| | {' | '.join((*others, *(f'charloom, {budget}' for budget in BUDGETS)))} |", "| --- " * 7 + "|"]
    for name in TEXTS:
        runs = {budget: results.get(f"{name}-{budget}") for budget in BUDGETS}
        some = next((run for run in runs.values() if run), None)
        if some:
            bits = [f"{some[other]:.3f}" for other in others]
            bits += [f"{run['validation_bits_per_char']:.3f}" if run else "" for run in runs.values()]
            lines.append(f"| {name} | {' | '.join(bits)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
