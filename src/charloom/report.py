"""The report on a model: one HTML page with what it learnt, how, and what can be seen inside of it."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from charloom import __version__
from charloom.description import summary
from charloom.inference import unit_outputs
from charloom.model import TextModel
from charloom.printable import shortened
from charloom.reports import model_report, unit_probes
from charloom.settings import SamplingSettings
from charloom.text import Corpus, split_records
from charloom.unique_samples import KnownText
from charloom.units import bits_from_nats

READ = 50_000
"""Characters from a text's end that are looked into, at most; of the text trained on no more than were held out."""
_MOST_OUTPUTS = 20_000_000
_TEXTS, _LENGTH = 12, 400
_MOST_READ, _LEAST_WRITTEN = 200_000, 60
"""A model of windows reads a window for each character: about how many it reads, and how many it generates at least."""
_COMPARED, _COPIED_FROM = 5, 2_000_000
"""Texts whose longest run is looked for, and the characters of a text's end that it is looked for in: a run takes so
many searches through all of them as a text has characters."""
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
            "facts": summary(model),
            "settings": {
                shortened(key): shortened(str(value))
                for key, value in model.training.items()
                if isinstance(value, int | float | str)
            },
            "history": _told(model, "history", {"step", "train_nats_per_char", "validation_nats_per_char"}),
            "progress": _told(model, "samples", {"step", "text"}),
            "samples": samples[:_TEXTS],
            "are_records": model.text.delimiter is not None,
            "speed": speed,
            "characters": _characters(model),
            "text": text,
            "why_not": why_not,
        }
    )


def _told(model: TextModel, name: str, keys: set[str]) -> list[dict[str, Any]]:
    """Returns what the model file tells of the training; of what is not as charloom writes it, nothing."""
    rows = model.training.get(name, [])
    return [row for row in rows if isinstance(row, dict) and keys <= row.keys()] if isinstance(rows, list) else []


def _written(model: TextModel) -> tuple[list[str], dict[str, float]]:
    """Returns what the model writes, and how fast it writes and scores here, in characters per second, side by side."""
    characters = model.vocabulary.characters
    fill = "\n" if "\n" in characters or model.vocabulary.units == "bytes" else characters[0]
    prompted, settings = model.prompted(fill * (model.window or 0)), SamplingSettings()
    count, length = _TEXTS if model.text.delimiter is None else _RECORDS, _LENGTH
    if model.window is not None:
        affordable = max(_LEAST_WRITTEN, _MOST_READ // model.window)
        length = min(length, affordable)
        count = min(count, affordable // length)
    for _ in range(2):  # the first call compiles
        began = time.perf_counter()
        writings = prompted.stream_many(length, settings, seed=_SEED, stream_indexes=range(count))
        texts = ["".join(one) for one in writings]
        writing = sum(map(len, texts)) / (time.perf_counter() - began)
    for _ in range(2):
        began = time.perf_counter()
        read = sum(score.characters for score in model.score_many(texts, unknown="replace"))
        scoring = read / (time.perf_counter() - began)
    return texts, {"writing": writing, "scoring": scoring}


def _looked_at(model: TextModel, corpus: Corpus, samples: Sequence[str]) -> dict[str, Any]:
    is_trained_on = corpus.sha256 == model.trained_on.get("sha256")
    are_records = model.text.delimiter is not None
    held_out = model.training.get("validation_chars", READ) if is_trained_on and not are_records else READ
    most = max(1, min(READ, held_out, _MOST_OUTPUTS // (model.settings.layers * model.settings.hidden)))
    if are_records:
        records = split_records(corpus.documents, model.text)
        end = model.text.record_end or "\n"
        joined = end.join(_as_text(record) for record in records)
        read = joined[-most:].partition(end)[2] if len(joined) > most else joined
        # Which records were held out of the text that was trained on, the seed has drawn: they are not told apart here.
        scores = [] if is_trained_on else model.score_many(read.split(end), unknown="replace")
    else:
        last = corpus.documents[-1]
        read = _as_text(last[-most:])
        scores = [model.score(last[-most:], unknown="replace")]
    known = KnownText(_ending(corpus), model.text)
    characters, nats = sum(score.characters for score in scores), sum(score.total_nats for score in scores)
    return {
        "name": corpus.name,
        "is_trained_on": is_trained_on,
        "characters": characters,
        "bits_per_char": bits_from_nats(nats / characters) if characters else None,
        "units": _units(model, read),
        "copies": _copies(samples, known, are_records),
        "is_cut": corpus.characters > _COPIED_FROM,
    }


def _as_text(text: str | bytes) -> str:
    """Returns a text to be shown: of bytes a character for each."""
    return text if isinstance(text, str) else text.decode("latin-1")


def _ending(corpus: Corpus) -> Corpus:
    """Returns the end of `corpus` that copies are looked for in."""
    documents: list[str | bytes] = []
    left = _COPIED_FROM
    for document in reversed(corpus.documents):
        if left > 0:
            documents.insert(0, document[-left:])
            left -= len(document)
    return replace(corpus, documents=tuple(documents))


def _units(model: TextModel, text: str) -> list[dict[str, Any]]:
    """Returns the telling units with their outputs on an excerpt, from -1 to 1 of their largest."""
    vocabulary = model.vocabulary
    encoded = text.encode("latin-1") if vocabulary.units == "bytes" else text
    token_ids = vocabulary.encode(encoded, "replace")
    # Most cells put out numbers from -1 to 1, but ReLU's may run away, to infinity and beyond it.
    outputs = np.clip(np.nan_to_num(unit_outputs(model.network, token_ids, record_end=vocabulary.end_id)), -1e6, 1e6)
    shown = []
    for one in unit_probes(text, outputs)[:_SHOWN_UNITS]:
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
    """Returns how much of what was written is written again, or stands in the text."""
    runs = [known.longest_run(text, 0) for text in samples[:_COMPARED]]
    return {
        "texts": len(samples),
        "repeats": len(samples) - len(set(samples)),
        "copies": sum(known.has(text) for text in samples) if are_records else None,
        "compared": len(runs),
        "longest_run": max(runs),
    }


def _characters(model: TextModel) -> list[dict[str, Any]]:
    """Returns where each character lies in the plane that the embeddings differ most in."""
    network = model.network
    table = network.projection_table() if network.embedding is None else network.embedding
    # Weights near the end of float32's range have products beyond it.
    vectors = np.nan_to_num(np.asarray(table)[: network.vocab_size]).astype(np.float64)
    centered = vectors - vectors.mean(axis=0)
    _, sizes, directions = np.linalg.svd(centered, full_matrices=False)
    places = np.zeros((len(vectors), 2))
    places[:, : min(2, len(sizes))] = centered @ directions[:2].T
    names = model.vocabulary.characters or [chr(byte) if byte < 0x80 else f"{byte:02x}" for byte in range(256)]
    return [{"character": name, "x": float(x), "y": float(y)} for name, (x, y) in zip(names, places, strict=True)]
