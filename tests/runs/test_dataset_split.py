"""The split of records into a training part and a held-out part."""

from collections import Counter

import numpy as np
import pytest

from charloom.data import ContiguousBatches, TokenStream
from charloom.errors import TooShortError
from charloom.runs.dataset_split import record_offsets, split_corpus
from charloom.runs.splits import hold_out_records
from charloom.settings import TextSettings, TrainingSettings
from charloom.text import Corpus

LINES = TextSettings(delimiter="\n")
NAMES = [f"{first}{second}" for first in "abcdefgh" for second in ("nn", "mm", "o" * 40)]


def split_of(records, validation=None, seed=0, text=LINES):
    corpus = Corpus("names", ("\n".join(records) + "\n",), "0")
    return split_corpus(corpus, text, TrainingSettings(validation=validation, seed=seed))


def records_of(stream, vocabulary):
    return [vocabulary.decode(document) for document in stream.documents]


def test_each_record_is_in_exactly_one_part():
    split = split_of(NAMES, 5)
    train, held_out = (records_of(stream, split.vocabulary) for stream in (split.train, split.validation))
    assert len(held_out) == 5
    assert sorted(train + held_out) == sorted(f"{name}\n" for name in NAMES)


def test_the_seed_draws_the_held_out_records():
    def held_out(seed):
        split = split_of(NAMES, 5, seed)
        return records_of(split.validation, split.vocabulary)

    assert held_out(1) == held_out(1) != held_out(2)


def test_copies_of_a_held_out_record_are_trained_on_and_a_notice_counts_them():
    records = NAMES + NAMES[:12] * 3
    split = split_of(records, 0.3)
    train, held_out = (Counter(records_of(stream, split.vocabulary)) for stream in (split.train, split.validation))
    assert train + held_out == Counter(f"{record}\n" for record in records)
    copies = sum(count for record, count in held_out.items() if record in train)
    assert copies > 2
    (notice,) = split.notices
    assert notice.startswith(f"{copies} of 18 held-out records also occur in the training part")


def test_a_few_copies_give_no_notice():
    split = split_of([*NAMES, *(f"{name}!" for name in NAMES), NAMES[0]], 20)
    train, held_out = (set(records_of(stream, split.vocabulary)) for stream in (split.train, split.validation))
    assert len(train & held_out) <= 1
    assert split.notices == ()


def test_a_record_that_repeats_is_as_frequent_in_training_as_in_the_text():
    """Without copies, a log would lose its most frequent lines."""
    split = split_of(["started"] * 900 + [f"failed {number}" for number in range(100)], 100)
    train = records_of(split.train, split.vocabulary)
    assert len(train) == 900
    assert train.count("started\n") == pytest.approx(810, abs=30)


def test_validation_counts_records():
    stream = TokenStream.from_documents([np.array([index % 250, index // 250]) for index in range(1000)])
    assert len(hold_out_records(stream, None, 0)[1].starts) == 100
    assert len(hold_out_records(stream, 0.25, 0)[1].starts) == 250
    assert len(hold_out_records(stream, 7, 0)[1].starts) == 7


def test_by_default_at_most_500_000_characters_are_held_out():
    stream = TokenStream.from_documents(np.full(30_000, index, np.int32) for index in range(300))
    _, validation, notices = hold_out_records(stream, None, 0)
    assert len(validation.starts) == 16
    assert notices[0].startswith("validation: 16 records instead of a tenth of them (30)")


@pytest.mark.parametrize(
    ("records", "validation", "message"),
    [
        (NAMES, 24, "leaves 0 of 24 records"),
        (NAMES, 100, "leaves 0 of 24 records"),
        (["emma"], None, "leaves 0 of 1 records"),
    ],
)
def test_empty_parts_are_refused(records, validation, message):
    with pytest.raises(TooShortError, match=message):
        split_of(records, validation)


def test_a_record_begins_after_the_end_token_and_is_predicted_to_its_end():
    """Every token occurs once per epoch, each record resets the state, and long records span several sequences."""
    split = split_of(NAMES, 4)
    stream = split.train
    batches = ContiguousBatches(stream, batch_size=1, sequence_length=16)
    block = batches.block(0, len(stream) // 16, len(stream) // 16)
    targets = block.token_ids[:, 0, 1:].reshape(-1)
    resets = block.resets[:, 0].reshape(-1)
    np.testing.assert_array_equal(targets, stream.token_ids[: len(targets)])
    np.testing.assert_array_equal(np.flatnonzero(resets), stream.starts[stream.starts < len(targets)])
    assert (block.token_ids[:, 0, :-1].reshape(-1)[resets] == split.vocabulary.start_id).all()


def test_rare_characters_are_replaced_with_a_notice():
    split = split_of([*NAMES, "zq"], 4, text=TextSettings(delimiter="\n", min_count=2))
    assert not set("zq") & set(split.vocabulary.characters)
    (notice,) = split.notices
    assert notice.endswith("they occur fewer than 2 times: 'q' (U+0071), 'z' (U+007A)")
    assert len(split.vocabulary.characters) == len("\nabcdefghmno\ufffd")


def test_rows_start_at_different_records_or_at_equal_offsets():
    stream = TokenStream.from_documents([np.zeros(length, np.int64) for length in (3, 4, 2, 5, 6)])
    assert record_offsets(stream, 2).tolist() == [0, 9]  # equal rows would start at 0 and 10
    assert record_offsets(stream, 4).tolist() == [0, 3, 9, 14]
    long = TokenStream.from_documents([np.zeros(length, np.int64) for length in (90, 10)])
    assert record_offsets(long, 4) is None  # three rows would read the same
