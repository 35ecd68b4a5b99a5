"""The report on a model: one HTML page with what it learnt, how, and what can be seen inside of it."""

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from charloom import __version__
from charloom.description import described
from charloom.distinct import KnownText
from charloom.inference import unit_outputs
from charloom.model import TextModel
from charloom.reports import model_report, telling_units
from charloom.settings import SamplingSettings
from charloom.text import Corpus, split_records

READ = 50_000
"""Characters from a text's end that are looked into: of the one that was trained on they were held out."""
_TEXTS, _LENGTH = 12, 400
_RECORDS = 500
_SHOWN_UNITS = 6
_SEED = 0


def report(model: TextModel, name: str, corpus: Corpus | None = None, why_not: str = "no text was given") -> str:
    """Returns a self-contained HTML page.

    Args:
        model: what it is about.
        name: what the model is called.
        corpus: a text to look into it with, read by the model's settings: the one that it was trained on, or another.
        why_not: why there is no text.
    """
    samples, speed = _written(model)
    text = None if corpus is None else _looked_at(model, corpus, samples)
    return model_report(
        {
            "name": name,
            "version": __version__,
            "facts": described(model),
            "settings": {key: value for key, value in model.training.items() if isinstance(value, int | float | str)},
            "history": model.training.get("history", []),
            "progress": model.training.get("samples", []),
            "samples": samples[:_TEXTS],
            "are_records": model.text.delimiter is not None,
            "speed": speed,
            "characters": _characters(model),
            "text": text,
            "why_not": why_not,
        }
    )


def _written(model: TextModel) -> tuple[list[str], dict[str, float]]:
    """Returns what the model writes, and how fast it writes and scores here, in characters a second."""
    prompt = "\n" * (model.window or 0) if "\n" in model.vocabulary.characters else ""
    prompt = prompt or model.vocabulary.characters[:1] * (model.window or 0)
    prepared, settings = model.prepare(prompt), SamplingSettings()
    count = _TEXTS if model.text.delimiter is None else _RECORDS
    for _ in range(2):  # the first call compiles
        began = time.perf_counter()
        alone = "".join(prepared.write(_LENGTH, settings, seed=_SEED))
        writing = len(alone) / (time.perf_counter() - began)
    writings = prepared.write_many(_LENGTH, settings, seed=_SEED, stream_indexes=range(count))
    texts = ["".join(one) for one in writings]
    known = [text for text in texts if text]
    for _ in range(2):
        began = time.perf_counter()
        read = sum(score.characters for score in model.score_many(known, unknown="replace"))
        scoring = read / (time.perf_counter() - began)
    return texts, {"writing": writing, "scoring": scoring}


def _looked_at(model: TextModel, corpus: Corpus, samples: Sequence[str]) -> dict[str, Any]:
    documents = [one if isinstance(one, str) else one.decode("utf-8", "replace") for one in corpus.documents]
    records = None
    if model.text.delimiter is not None:
        split = split_records(corpus.documents, model.text)
        records = [one if isinstance(one, str) else one.decode("utf-8", "replace") for one in split]
        scores = model.score_many(records[-max(1, READ // 10) :], unknown="replace")
        characters = sum(score.characters for score in scores)
        bits = sum(score.total_nats for score in scores) / characters / np.log(2)
        end = model.text.record_end or "\n"
        read = end.join(records)[-READ:]
    else:
        read = "\n".join(documents)[-READ:]
        score = model.score(read, unknown="replace")
        characters, bits = score.characters, score.bits_per_char
    known = KnownText(corpus, model.text)
    return {
        "name": corpus.name,
        "is_trained_on": corpus.sha256 == model.trained_on.get("sha256"),
        "characters": characters,
        "bits_per_char": float(bits),
        "units": _units(model, read),
        "copies": _copies(samples, known, records is not None),
    }


def _units(model: TextModel, text: str) -> list[dict[str, Any]]:
    """Returns the telling units with their outputs on an excerpt, from -1 to 1 of their largest."""
    if model.vocabulary.units == "bytes":
        data = text.encode("utf-8", "replace")
        text = data.decode("latin-1")  # a character a byte
        token_ids = np.frombuffer(data, np.uint8)
    else:
        token_ids = model.vocabulary.encode(text, "replace")
    outputs = unit_outputs(model.network, token_ids)
    shown = []
    for one in telling_units(text, outputs)[:_SHOWN_UNITS]:
        values = outputs[:, one.unit]
        excerpt = values[one.first : one.last] - np.median(values)
        largest = float(np.abs(excerpt).max()) or 1.0
        shown.append(
            {
                "feature": one.feature,
                "layer": one.unit // model.settings.hidden + 1,
                "unit": one.unit % model.settings.hidden,
                "correlation": one.correlation,
                "text": text[one.first : one.last],
                "outputs": (excerpt / largest).tolist(),
            }
        )
    return shown


def _copies(samples: Sequence[str], known: KnownText, are_records: bool) -> dict[str, Any]:
    """Returns how much of what was written is written twice, or stands in the text."""
    runs = [known.longest_run(text, 0) for text in samples[:_TEXTS]]
    counts = Counter(samples)
    return {
        "texts": len(samples),
        "duplicates": len(samples) - len(counts),
        "copies": sum(known.has(text) for text in samples) if are_records else None,
        "longest_run": max(runs),
        "median_run": float(np.median(runs)),
    }


def _characters(model: TextModel) -> list[dict[str, Any]]:
    """Returns where each character lies in the plane that the embeddings differ most in."""
    network = model.network
    table = network.projection_table() if network.embedding is None else network.embedding
    vectors = np.asarray(table, np.float64)[: network.vocab_size]
    centered = vectors - vectors.mean(axis=0)
    _, sizes, directions = np.linalg.svd(centered, full_matrices=False)
    places = np.zeros((len(vectors), 2))
    places[:, : min(2, len(sizes))] = centered @ directions[:2].T
    names = model.vocabulary.characters or [chr(byte) if byte < 0x80 else f"{byte:02x}" for byte in range(256)]
    return [{"character": name, "x": float(x), "y": float(y)} for name, (x, y) in zip(names, places, strict=True)]
