import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charloom.data import TokenStream, evaluation_pass, ordered_pass, record_pass
from charloom.text import CharacterCounts, Vocabulary


def scored_targets(blocks):
    found = []
    for block in blocks:
        targets = block.token_ids[: block.steps, :, 1:]
        found.append(targets[block.scored[: block.steps]])
        assert block.characters == len(found[-1])
    return np.concatenate(found)


@given(st.integers(1, 9000))
@settings(max_examples=40, deadline=None)
def test_each_character_is_scored_exactly_once(length):
    stream = TokenStream(np.arange(length, dtype=np.uint16), np.zeros(1, np.int64))
    assert scored_targets(ordered_pass(stream)).tolist() == list(range(length))
    assert sorted(scored_targets(evaluation_pass(stream)).tolist()) == list(range(length))
    blocks = list(ordered_pass(stream))
    assert {block.resets.shape[1] for block in blocks} == {1}
    assert sum(block.steps for block in blocks) == -(-length // 64)  # nothing is read after the end


@pytest.mark.parametrize("length", [513, 5000, 40000, 70001])
def test_rows_read_512_characters_before_they_score(length):
    stream = TokenStream(np.arange(length, dtype=np.int32), np.zeros(1, np.int64))
    blocks = list(evaluation_pass(stream))
    batch_size = blocks[0].resets.shape[1]
    assert batch_size == max(1, min(64, length // 512))
    targets = np.concatenate(
        [b.token_ids[: b.steps, :, 1:].transpose(1, 0, 2).reshape(batch_size, -1) for b in blocks], 1
    )
    scored = np.concatenate([b.scored[: b.steps].transpose(1, 0, 2).reshape(batch_size, -1) for b in blocks], 1)
    resets = np.concatenate([b.resets[: b.steps].transpose(1, 0, 2).reshape(batch_size, -1) for b in blocks], 1)
    assert resets[0, 0]  # the first row begins the text
    assert scored[0, 0]
    for row in range(1, batch_size):
        first = int(scored[row].argmax())
        assert first == min(512, targets[row, first])  # the number of characters read before the first scored one
        assert not resets[row, : length // batch_size].any()
    # Within a row, each time step reads the target of the one before.
    inputs = np.concatenate(
        [b.token_ids[: b.steps, :, :-1].transpose(1, 0, 2).reshape(batch_size, -1) for b in blocks], 1
    )
    np.testing.assert_array_equal(inputs[:, 1:], targets[:, :-1])


def test_documents_reset_the_state_in_a_pass():
    stream = TokenStream.from_documents([np.arange(5), np.arange(3)])
    (block,) = ordered_pass(stream)
    assert np.flatnonzero(block.resets[0, 0][:8]).tolist() == [0, 5]


@pytest.mark.parametrize("units", ["chars", "bytes"])
def test_records_become_documents_with_their_end_token(units):
    records = ["ab", "", "c", "abc"]
    if units == "bytes":
        vocabulary = Vocabulary.of_bytes("\n")
        stream = TokenStream.from_records([record.encode() for record in records], vocabulary)
    else:
        counts = CharacterCounts(exact=False)
        counts.add("abc")
        vocabulary = Vocabulary.of_counts(counts, 1, "\n")
        stream = TokenStream.from_records(records, vocabulary)
    assert stream.starts.tolist() == [0, 3, 4, 6]
    assert [vocabulary.decode(document) for document in stream.documents] == ["ab\n", "\n", "c\n", "abc\n"]


def test_split_keeps_document_starts():
    stream = TokenStream.from_documents([np.arange(5), np.zeros(0, int), np.arange(3), np.arange(4)])
    assert stream.starts.tolist() == [0, 5, 8]
    before, after = stream.split(6)
    assert before.starts.tolist() == [0, 5]
    assert after.starts.tolist() == [0, 2]
    assert len(before) + len(after) == 12
    assert stream.split(8)[1].starts.tolist() == [0]


@given(st.lists(st.integers(1, 300), min_size=1, max_size=200))
@settings(max_examples=40, deadline=None)
def test_each_record_is_read_from_its_beginning(lengths):
    ids = np.split(np.arange(sum(lengths), dtype=np.int32), np.cumsum(lengths)[:-1])
    stream = TokenStream.from_documents(ids)
    blocks = list(record_pass(stream))
    assert sorted(scored_targets(blocks).tolist()) == list(range(len(stream)))
    for block in blocks:
        targets, resets, scored = (
            block.token_ids[: block.steps, :, 1:],
            *(array[: block.steps].transpose(0, 2, 1) for array in (block.resets, block.scored)),
        )
        begins = targets.transpose(0, 2, 1)[resets & scored]
        assert set(begins.tolist()) <= set(stream.starts.tolist())
    assert sum(int((b.resets & b.scored)[: b.steps].sum()) for b in blocks) == len(lengths)
