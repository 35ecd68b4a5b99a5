import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charloom.data import ContiguousBatches, TokenStream
from charloom.errors import SourceError, TooShortError


def stream_of(length, starts=(0,)):
    return TokenStream(np.arange(length, dtype=np.uint16), np.array(starts, np.int64))


@st.composite
def cases(draw):
    batch_size, length = draw(st.integers(1, 7)), draw(st.integers(1, 9))
    characters = draw(st.integers(batch_size * length, batch_size * length + 40))
    starts = {0} | draw(st.sets(st.integers(1, max(1, characters - 1)), max_size=4 if characters > 1 else 0))
    return ContiguousBatches(stream_of(characters, sorted(starts)), batch_size, length)


def steps_of(batches, steps):
    """Returns (target, input) of every time step, one list per row. The input is None for the start input."""
    block = batches.block(0, steps, steps)
    found = []
    for row in range(batches.batch_size):
        inputs = block.token_ids[:, row, :-1].reshape(-1).tolist()
        targets = block.token_ids[:, row, 1:].reshape(-1).tolist()
        resets = block.resets[:, row].reshape(-1)
        found.append([(t, None if r else i) for t, i, r in zip(targets, inputs, resets, strict=True)])
    return found


@given(cases())
@settings(max_examples=200, deadline=None)
def test_an_epoch_has_each_target_once_in_order(batches):
    length = len(batches.stream)
    steps = -(-length // (batches.batch_size * batches.sequence_length)) + 1
    bounds = [row * length // batches.batch_size for row in range(batches.batch_size + 1)]
    found = []
    for row, row_steps in enumerate(steps_of(batches, steps)):
        part = row_steps[: bounds[row + 1] - bounds[row]]
        found += [target for target, _ in part]
    assert found == list(range(length))


@given(cases())
@settings(max_examples=200, deadline=None)
def test_state_is_reset_exactly_where_a_document_begins(batches):
    starts = set(batches.stream.starts.tolist())
    for steps in steps_of(batches, 12):
        for target, given_input in steps:
            if target in starts:
                assert given_input is None
            else:
                assert given_input == target - 1


@given(cases(), st.integers(0, 5), st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_blocks_do_not_depend_on_where_they_are_cut(batches, before, steps):
    whole = batches.block(0, before + steps, before + steps)
    part = batches.block(before, steps, capacity=steps + 3)
    np.testing.assert_array_equal(part.token_ids[:steps], whole.token_ids[before:])
    np.testing.assert_array_equal(part.resets[:steps], whole.resets[before:])
    assert part.steps == steps
    assert not part.scored[steps:].any()
    assert part.characters == steps * batches.characters_per_step


def test_positions_beyond_32_bits():
    # Positions are Python ints, so that step 2**40 works like any other.
    batches = ContiguousBatches(stream_of(10), 1, 5)
    block = batches.block(2**40, 1, 1)
    assert block.token_ids[0, 0, 1:].tolist() == [(2**40 * 5 + k) % 10 for k in range(5)]


def test_an_epoch_rounds_to_steps():
    batches = ContiguousBatches(stream_of(100), 2, 8)
    assert batches.steps_in(1) == 6
    assert batches.steps_in(0.001) == 1


def test_a_text_that_is_too_short_is_refused_with_a_remedy():
    with pytest.raises(
        TooShortError, match=r"sequence_length 512 does not fit: 19,264 training characters over 64 rows "
    ):
        ContiguousBatches(TokenStream(np.zeros(19264, np.uint8), np.zeros(1, np.int64)), 64, 512)
    with pytest.raises(TooShortError, match="do not fill 64 rows"):
        ContiguousBatches(stream_of(10), 64, 8)


@pytest.mark.parametrize("read", ["circular", "batches"])
def test_an_id_outside_the_vocabulary_is_refused_when_it_is_read(read):
    damaged = TokenStream(np.array([0, 1, 2, 9, 1, 0, 2, 1], np.uint8), np.zeros(1, np.int64), vocab_size=3)
    before, after = damaged.split(3)
    assert before.circular(-1, 7).tolist() == [2, 0, 1, 2, 0, 1, 2]
    with pytest.raises(SourceError, match="has id 9, but only 3 characters"):
        after.circular(0, 2) if read == "circular" else ContiguousBatches(damaged, 2, 2).block(0, 2, 2)
