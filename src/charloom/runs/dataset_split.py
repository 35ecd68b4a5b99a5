"""A corpus as token ids, split into a training part and a held-out part."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from charloom.data import TokenStream
from charloom.errors import SourceError
from charloom.runs.splits import hold_out_records, split_validation
from charloom.settings import TextSettings, TrainingSettings
from charloom.text import CharacterCounts, Corpus, Vocabulary, describe_characters, split_records


@dataclass(frozen=True)
class DatasetSplit:
    """Token ids to train and to validate on.

    Attributes:
        vocabulary: the vocabulary of both parts.
        train: the training part.
        validation: the held-out part.
        notices: lines for the user.
    """

    vocabulary: Vocabulary
    train: TokenStream
    validation: TokenStream
    notices: tuple[str, ...]


def split_corpus(corpus: Corpus, text: TextSettings, training: TrainingSettings) -> DatasetSplit:
    """Returns the corpus in two parts. Held out are the end of continuous text, or records that the seed draws.

    Raises:
        CharloomError: the text is too short, or does not have any records.
    """
    records = None if text.delimiter is None else split_records(corpus.documents, text)
    texts: tuple[str | bytes, ...] = corpus.documents if records is None else tuple(records)
    characters = (document for document in texts if isinstance(document, str))
    vocabulary, notices = vocabulary_of(CharacterCounts.of_texts(characters, exact=text.min_count > 1), text)
    # Characters rarer than --min-count are replaced; without it every character is in the vocabulary.
    if records is None:
        stream = TokenStream.from_documents(vocabulary.encode(document, "replace") for document in texts)
        train, validation, more = split_validation(stream, training.validation)
    else:
        stream = TokenStream.from_records(records, vocabulary)
        train, validation, more = hold_out_records(stream, training.validation, training.seed)
    return DatasetSplit(vocabulary, train, validation, (*notices, *more))


def record_offsets(stream: TokenStream, batch_size: int) -> Int64[np.ndarray, " batch"] | None:
    """Returns where rows of about equal length start, each at a record; None if two rows would share a start."""
    equal = np.arange(batch_size) * len(stream) // batch_size
    offsets = stream.starts[np.searchsorted(stream.starts, equal, side="right") - 1]
    return offsets if len(np.unique(offsets)) == batch_size else None


def vocabulary_of(counts: CharacterCounts, text: TextSettings) -> tuple[Vocabulary, list[str]]:
    """Returns the vocabulary of the counted characters, and a notice of the characters that are replaced.

    Raises:
        SourceError: all characters would be replaced.
    """
    if text.units == "bytes":
        return Vocabulary.of_bytes(text.record_end), []
    vocabulary = Vocabulary.of_counts(counts, text.min_count, text.record_end)
    if vocabulary.size == (vocabulary.unknown_id is not None) + (vocabulary.end_id is not None):
        raise SourceError(f"no character occurs {text.min_count:,} times. Pass a smaller --min-count.")
    rare = counts.characters(below=text.min_count)
    if not rare:
        return vocabulary, []
    return vocabulary, [
        f"replaced with one unknown character, because they occur fewer than {text.min_count:,} times: "
        f"{describe_characters(rare)}"
    ]
