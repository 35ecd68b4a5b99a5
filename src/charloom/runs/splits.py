"""Splits the corpus and adjusts settings to it, with a notice for each change."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from charloom.data import TokenStream
from charloom.errors import TooShortError
from charloom.settings import TrainingSettings

_DEFAULT_VALIDATION = 0.1
_MAX_DEFAULT_VALIDATION = 500_000
_MIN_VALIDATION = 10
"""Fewer held-out characters cannot measure a model."""
_COPIES_NOTICE_FRACTION = 0.1
"""A notice appears if at least this fraction of the held-out records also occurs in the training part."""
_HOLD_OUT_STREAM = 1  # makes this order independent of other uses of the seed


def held_out_characters(characters: int, share: float) -> int:
    """Returns how many of `characters` are held out: all except floor(N (1 - share)).

    Args:
        characters: the number N of characters, or of records.
        share: below 1 a fraction of them, from 1 a number.

    >>> held_out_characters(10, 0.1), held_out_characters(10, 3)
    (1, 3)
    """
    # Rounded first: in floats 1 - 0.1 is slightly below 0.9, so the floor of ten times that would lose a character.
    return characters - int(round(characters * (1 - share), 6)) if share < 1 else int(share)


def split_validation(stream: TokenStream, validation: float | None) -> tuple[TokenStream, TokenStream, list[str]]:
    """Returns the training part, the held-out part (the end of the text), and notices.

    Args:
        stream: the text.
        validation: below 1 a fraction, which leaves floor(N (1 - validation)) characters to train on. From 1 a number
            of characters. None means a tenth, but at most 500,000 characters.

    Raises:
        TooShortError: a part would be too small.
    """
    share = _DEFAULT_VALIDATION if validation is None else validation
    held_out = held_out_characters(len(stream), share)
    notices = []
    if validation is None and held_out > _MAX_DEFAULT_VALIDATION:
        notices.append(
            f"validation: the last {_MAX_DEFAULT_VALIDATION:,} characters instead of a tenth of the text "
            f"({held_out:,}), because more would only take longer. Set it with --validation"
        )
        held_out = _MAX_DEFAULT_VALIDATION
    if held_out < _MIN_VALIDATION:
        raise TooShortError(
            f"validation {share:.10g} leaves {held_out} of {len(stream):,} characters to validate on, but at least "
            f"{_MIN_VALIDATION} are needed. Pass --validation {_MIN_VALIDATION} or more, or give a longer text."
        )
    if len(stream) - held_out < 2:
        raise TooShortError(
            f"validation {share:.10g} leaves {max(0, len(stream) - held_out)} of {len(stream):,} characters to train "
            "on. Pass a smaller --validation, or give a longer text."
        )
    return *stream.split(len(stream) - held_out), notices


def hold_out_records(
    stream: TokenStream, validation: float | None, seed: int
) -> tuple[TokenStream, TokenStream, list[str]]:
    """Returns the training part, the held-out part, and notices. Both are whole records, in an order from the seed.

    Copies of a held-out record stay in the training part, because otherwise the model would never see common records.
    A notice appears if many held-out records have copies.

    Args:
        stream: the records, one document each.
        validation: below 1 a fraction of the records, from 1 a number. None means a tenth, but at most 500,000
            characters.
        seed: the random seed of the order.

    Raises:
        TooShortError: a part would be empty.
    """
    records = stream.documents
    order = np.random.default_rng([seed, _HOLD_OUT_STREAM]).permutation(len(records))
    drawn = [records[index] for index in order]
    share = _DEFAULT_VALIDATION if validation is None else validation
    count = held_out_characters(len(records), share)
    notices = []
    if validation is None:
        lengths = np.cumsum([len(record) for record in drawn])
        max_count = max(int(np.searchsorted(lengths, _MAX_DEFAULT_VALIDATION, "right")), 1)
        if max_count < count:
            notices.append(
                f"validation: {max_count:,} records instead of a tenth of them ({count:,}), because more than "
                f"{_MAX_DEFAULT_VALIDATION:,} characters would only take longer. Set it with --validation"
            )
            count = max_count
    if not 0 < count < len(records):
        raise TooShortError(
            f"validation {share:.10g} leaves {max(0, len(records) - count):,} of {len(records):,} records to train on "
            f"and {min(count, len(records)):,} to validate on. Pass another --validation, or give more records."
        )
    train, held_out = drawn[count:], drawn[:count]
    copies = _copies(held_out, train)
    if copies >= _COPIES_NOTICE_FRACTION * count:
        notices.append(
            f"{copies:,} of {count:,} held-out records also occur in the training part, so the validation loss "
            "includes records that the model was trained on"
        )
    return TokenStream.from_documents(train), TokenStream.from_documents(held_out), notices


def _copies(held_out: Sequence[np.ndarray], train: Sequence[np.ndarray]) -> int:
    """Returns how many held-out records also occur in the training part."""
    unique = {record.tobytes() for record in held_out}
    common = unique.intersection(record.tobytes() for record in train)
    return sum(record.tobytes() in common for record in held_out)


def fit_batch_size(settings: TrainingSettings, characters: int) -> tuple[TrainingSettings, list[str]]:
    """Returns `settings` with a smaller batch, and if necessary a shorter sequence, for a short text; and notices."""
    sequence_length = min(settings.sequence_length, characters)
    batch_size = max(1, min(settings.batch_size, characters // sequence_length))
    changes = [
        f"{name} {new} instead of {old}"
        for name, old, new in (
            ("batch_size", settings.batch_size, batch_size),
            ("sequence_length", settings.sequence_length, sequence_length),
        )
        if old != new
    ]
    if not changes:
        return settings, []
    notice = f"{' and '.join(changes)}, because the text has only {characters:,} characters to train on"
    return replace(settings, batch_size=batch_size, sequence_length=sequence_length), [notice]
