"""Adjusts settings to the corpus and reports each change."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from charloom.data import TokenStream
from charloom.errors import TooShortError
from charloom.settings import TrainingSettings

_DEFAULT_VALIDATION = 0.1
_MOST_DEFAULT_VALIDATION = 500_000
_LEAST_VALIDATION = 10
"""Fewer characters tell nothing about a model."""
_MANY_COPIES = 0.1
"""The share of held-out records that are copies of training records from which on a notice says so."""
_HOLD_OUT = 1  # tells this order from other draws of the seed


def held_out_characters(characters: int, share: float) -> int:
    """Returns how many characters at the end of `characters` are held out: all but floor(N (1 - share)) of them.

    Args:
        characters: N.
        share: below 1 a share of them, from 1 a count.

    >>> held_out_characters(10, 0.1), held_out_characters(10, 3)
    (1, 3)
    """
    # Rounded first: 1 - 0.1 is a hair below 0.9, and the floor of ten times it would lose a character.
    return characters - int(round(characters * (1 - share), 6)) if share < 1 else int(share)


def split_validation(stream: TokenStream, validation: float | None) -> tuple[TokenStream, TokenStream, list[str]]:
    """Returns the training part, the validation part (the text's tail), and notices.

    Args:
        validation: below 1 a share, of which floor(N (1 - validation)) characters are left to train on; from 1
            a count of characters; None for a tenth, at most 500,000 characters.

    Raises:
        TooShortError: a part would be too small.
    """
    share = _DEFAULT_VALIDATION if validation is None else validation
    held_out = held_out_characters(len(stream), share)
    notices = []
    if validation is None and held_out > _MOST_DEFAULT_VALIDATION:
        notices.append(
            f"validation: the last {_MOST_DEFAULT_VALIDATION:,} characters instead of a tenth of the text "
            f"({held_out:,}): more would only take time. --validation sets it"
        )
        held_out = _MOST_DEFAULT_VALIDATION
    if held_out < _LEAST_VALIDATION:
        raise TooShortError(
            f"validation {share:.10g} leaves {held_out} of {len(stream):,} characters to validate on, and at least "
            f"{_LEAST_VALIDATION} are needed. Pass --validation {_LEAST_VALIDATION} or more, or give a longer text."
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
    """Returns the training part, the validation part, and notices: whole records, in an order drawn by the seed.

    Copies of a held-out record stay in the training part: without them a model would never see what is common. A
    notice says so where many held-out records have one.

    Args:
        stream: each document a record.
        validation: below 1 a share of the records, from 1 a count; None for a tenth, at most 500,000 characters.
        seed: of the order.

    Raises:
        TooShortError: a part would be empty.
    """
    records = stream.documents
    order = np.random.default_rng([seed, _HOLD_OUT]).permutation(len(records))
    drawn = [records[index] for index in order]
    share = _DEFAULT_VALIDATION if validation is None else validation
    count = held_out_characters(len(records), share)
    notices = []
    if validation is None:
        within = int(np.searchsorted(np.cumsum([len(record) for record in drawn]), _MOST_DEFAULT_VALIDATION, "right"))
        if within < count:
            notices.append(
                f"validation: {max(within, 1):,} records instead of a tenth of them ({count:,}): more than "
                f"{_MOST_DEFAULT_VALIDATION:,} characters would only take time. --validation sets it"
            )
            count = max(within, 1)
    if not 0 < count < len(records):
        raise TooShortError(
            f"validation {share:.10g} leaves {max(0, len(records) - count):,} of {len(records):,} records to train on "
            f"and {min(count, len(records)):,} to validate on. Pass another --validation, or give more records."
        )
    train, held_out = drawn[count:], drawn[:count]
    copies = _copies(held_out, train)
    if copies >= _MANY_COPIES * count:
        notices.append(
            f"{copies:,} of {count:,} held-out records also stand in the training part: the validation figure covers "
            "records that the model has seen"
        )
    return TokenStream.from_documents(train), TokenStream.from_documents(held_out), notices


def _copies(held_out: Sequence[np.ndarray], train: Sequence[np.ndarray]) -> int:
    """Returns how many of the records held out stand among those to train on."""
    different = {record.tobytes() for record in held_out}
    seen = different.intersection(record.tobytes() for record in train)
    return sum(record.tobytes() in seen for record in held_out)


def fit_batch_size(settings: TrainingSettings, characters: int) -> tuple[TrainingSettings, list[str]]:
    """Returns `settings` with fewer rows, and then a shorter sequence, where the text has not enough for them."""
    sequence_length = min(settings.sequence_length, characters)
    batch_size = max(1, min(settings.batch_size, characters // sequence_length))
    changes = [
        f"{name} {now} instead of {was}"
        for name, was, now in (
            ("batch_size", settings.batch_size, batch_size),
            ("sequence_length", settings.sequence_length, sequence_length),
        )
        if was != now
    ]
    if not changes:
        return settings, []
    notice = f"{' and '.join(changes)}: the text has only {characters:,} characters to train on"
    return replace(settings, batch_size=batch_size, sequence_length=sequence_length), [notice]
