"""The report on a model: one HTML page with its samples, its training and a look inside the network."""

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

MAX_ANALYZED = 50_000
"""Maximum number of characters to analyze, from a text's end. Of the training text only the held-out part is used."""
_MAX_OUTPUTS = 20_000_000
_SAMPLES, _SAMPLE_LENGTH = 12, 400
_MAX_WINDOW_READ, _MIN_GENERATED = 200_000, 60
"""A model with a window reads a window per character: about how many characters it reads, and at least generates."""
_COMPARED_SAMPLES, _COMPARED_CHARACTERS = 5, 2_000_000
"""How many samples are searched for copied passages, and in how many characters from the end of the text.

The search for the longest copied passage takes one pass over those characters per character of a sample."""
_RECORDS = 500
_SHOWN_UNITS = 6
_SEED = 0


def report(model: TextModel, name: str, corpus: Corpus | None = None, why_not: str = "no text was given") -> str:
    """Returns a self-contained HTML page.

    Args:
        model: the model.
        name: the model's name.
        corpus: a text to analyze with the model: the training text or another one, read by the model's settings.
        why_not: why there is no text.
    """
    samples, speed = _samples_and_speed(model)
    text = None if corpus is None else _analysis(model, corpus, samples)
    return model_report(
        {
            "name": name,
            "version": __version__,
            "summary": summary(model),
            "settings": {
                shortened(key): shortened(_readable(value))
                for key, value in model.training.items()
                if isinstance(value, int | float | str)
            },
            "history": _training_rows(model, "history", {"step", "train_nats_per_char", "validation_nats_per_char"}),
            "progress": _training_rows(model, "samples", {"step", "text"}),
            "samples": samples[:_SAMPLES],
            "are_records": model.text.delimiter is not None,
            "speed": speed,
            "characters": _characters(model),
            "text": text,
            "why_not": why_not,
        }
    )


def _readable(value: bool | float | str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _training_rows(model: TextModel, name: str, keys: set[str]) -> list[dict[str, Any]]:
    """Returns a list from the model file's training section, without rows that do not have the `keys`."""
    rows = model.training.get(name, [])
    return [row for row in rows if isinstance(row, dict) and keys <= row.keys()] if isinstance(rows, list) else []


def _samples_and_speed(model: TextModel) -> tuple[list[str], dict[str, float]]:
    """Returns samples, and the speed of generating and scoring them in parallel, in characters per second."""
    characters = model.vocabulary.characters
    fill = "\n" if "\n" in characters or model.vocabulary.units == "bytes" else characters[0]
    prompted, settings = model.prompted(fill * (model.window or 0)), SamplingSettings()
    count, length = _SAMPLES if model.text.delimiter is None else _RECORDS, _SAMPLE_LENGTH
    if model.window is not None:
        affordable = max(_MIN_GENERATED, _MAX_WINDOW_READ // model.window)
        length = min(length, affordable)
        count = min(count, affordable // length)
    for _ in range(2):  # the first call compiles
        start = time.perf_counter()
        streams = prompted.stream_many(length, settings, seed=_SEED, stream_indexes=range(count))
        texts = ["".join(stream) for stream in streams]
        generation = sum(map(len, texts)) / (time.perf_counter() - start)
    for _ in range(2):
        start = time.perf_counter()
        scored = sum(score.characters for score in model.score_many(texts, unknown="replace"))
        scoring = scored / (time.perf_counter() - start)
    return texts, {"generation": generation, "scoring": scoring}


def _analysis(model: TextModel, corpus: Corpus, samples: Sequence[str]) -> dict[str, Any]:
    """Returns what the page shows about a text: its score, units that follow it, and how much samples copy from it."""
    is_trained_on = corpus.sha256 == model.trained_on.get("sha256")
    are_records = model.text.delimiter is not None
    held_out = (
        model.training.get("validation_chars", MAX_ANALYZED) if is_trained_on and not are_records else MAX_ANALYZED
    )
    length = max(1, min(MAX_ANALYZED, held_out, _MAX_OUTPUTS // (model.settings.layers * model.settings.hidden)))
    if are_records:
        records = split_records(corpus.documents, model.text)
        end = model.text.record_end or "\n"
        joined = end.join(_as_text(record) for record in records)
        read = joined[-length:].partition(end)[2] if len(joined) > length else joined
        # The seed drew the held-out records of the training text, so they cannot be identified here.
        scores = [] if is_trained_on else model.score_many(read.split(end), unknown="replace")
    else:
        last = corpus.documents[-1]
        read = _as_text(last[-length:])
        scores = [model.score(last[-length:], unknown="replace")]
    known = KnownText(_ending(corpus), model.text)
    characters, nats = sum(score.characters for score in scores), sum(score.total_nats for score in scores)
    return {
        "name": corpus.name,
        "is_trained_on": is_trained_on,
        "characters": characters,
        "bits_per_char": bits_from_nats(nats / characters) if characters else None,
        "units": _units(model, read),
        "copies": _copies(samples, known, are_records),
        "is_cut": corpus.characters > _COMPARED_CHARACTERS,
    }


def _as_text(text: str | bytes) -> str:
    """Returns a text to show. Bytes become one character each."""
    return text if isinstance(text, str) else text.decode("latin-1")


def _ending(corpus: Corpus) -> Corpus:
    """Returns the end of `corpus`, in which copied passages are searched."""
    documents: list[str | bytes] = []
    left = _COMPARED_CHARACTERS
    for document in reversed(corpus.documents):
        if left > 0:
            documents.insert(0, document[-left:])
            left -= len(document)
    return replace(corpus, documents=tuple(documents))


def _units(model: TextModel, text: str) -> list[dict[str, Any]]:
    """Returns the interpretable units with their outputs on an excerpt, scaled to a maximum of 1."""
    vocabulary = model.vocabulary
    encoded = text.encode("latin-1") if vocabulary.units == "bytes" else text
    token_ids = vocabulary.encode(encoded, "replace")
    # Most cells output numbers from -1 to 1, but ReLU's outputs may grow to infinity or NaN.
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
    """Returns how many samples repeat each other or occur in the text, and the longest copied passage."""
    runs = [known.longest_run(text, 0) for text in samples[:_COMPARED_SAMPLES]]
    return {
        "texts": len(samples),
        "repeats": len(samples) - len(set(samples)),
        "copies": sum(known.has(text) for text in samples) if are_records else None,
        "compared": len(runs),
        "longest_run": max(runs),
    }


def _characters(model: TextModel) -> list[dict[str, Any]]:
    """Returns each character's position in the plane of the embeddings' two principal components."""
    network = model.network
    table = network.projection_table() if network.embedding is None else network.embedding
    # Products of weights near the limits of float32 overflow.
    vectors = np.nan_to_num(np.asarray(table)[: network.vocab_size]).astype(np.float64)
    centered = vectors - vectors.mean(axis=0)
    _, sizes, directions = np.linalg.svd(centered, full_matrices=False)
    positions = np.zeros((len(vectors), 2))
    positions[:, : min(2, len(sizes))] = centered @ directions[:2].T
    names = model.vocabulary.characters or [chr(byte) if byte < 0x80 else f"{byte:02x}" for byte in range(256)]
    return [{"character": name, "x": float(x), "y": float(y)} for name, (x, y) in zip(names, positions, strict=True)]
