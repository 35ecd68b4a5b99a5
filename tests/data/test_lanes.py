import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charloom.data import Lanes, TokenStream
from charloom.errors import SourceError, TooShortError


def stream_of(length, starts=(0,)):
    return TokenStream(np.arange(length, dtype=np.uint16), np.array(starts, np.int64))


@st.composite
def cases(draw):
    lanes, unroll = draw(st.integers(1, 7)), draw(st.integers(1, 9))
    length = draw(st.integers(lanes * unroll, lanes * unroll + 40))
    starts = {0} | draw(st.sets(st.integers(1, max(1, length - 1)), max_size=4 if length > 1 else 0))
    return Lanes(stream_of(length, sorted(starts)), lanes, unroll)


def steps_of(lanes, updates):
    """(target, input or None for the start input) of every step, a list for each lane."""
    block = lanes.block(0, updates, updates)
    found = []
    for lane in range(lanes.lanes):
        inputs = block.token_ids[:, lane, :-1].reshape(-1).tolist()
        targets = block.token_ids[:, lane, 1:].reshape(-1).tolist()
        resets = block.resets[:, lane].reshape(-1)
        found.append([(t, None if r else i) for t, i, r in zip(targets, inputs, resets, strict=True)])
    return found


@given(cases())
@settings(max_examples=200, deadline=None)
def test_an_epoch_has_each_target_once_and_in_order(lanes):
    length = len(lanes.stream)
    updates = -(-length // (lanes.lanes * lanes.unroll_length)) + 1
    bounds = [lane * length // lanes.lanes for lane in range(lanes.lanes + 1)]
    seen = []
    for lane, steps in enumerate(steps_of(lanes, updates)):
        part = steps[: bounds[lane + 1] - bounds[lane]]
        seen += [target for target, _ in part]
    assert seen == list(range(length))


@given(cases())
@settings(max_examples=200, deadline=None)
def test_state_is_reset_exactly_where_a_document_begins(lanes):
    starts = set(lanes.stream.starts.tolist())
    for steps in steps_of(lanes, 12):
        for target, given_input in steps:
            if target in starts:
                assert given_input is None
            else:
                assert given_input == target - 1


@given(cases(), st.integers(0, 5), st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_blocks_do_not_depend_on_where_they_are_cut(lanes, before, updates):
    whole = lanes.block(0, before + updates, before + updates)
    part = lanes.block(before, updates, capacity=updates + 3)
    np.testing.assert_array_equal(part.token_ids[:updates], whole.token_ids[before:])
    np.testing.assert_array_equal(part.resets[:updates], whole.resets[before:])
    assert part.updates == updates
    assert not part.scored[updates:].any()
    assert part.characters == updates * lanes.characters_per_update


def test_positions_beyond_32_bits():
    # The position is a Python int: update 2**40 of a lane is as good as any other.
    lanes = Lanes(stream_of(10), 1, 5)
    block = lanes.block(2**40, 1, 1)
    assert block.token_ids[0, 0, 1:].tolist() == [(2**40 * 5 + k) % 10 for k in range(5)]


def test_an_epoch_rounds_to_updates():
    lanes = Lanes(stream_of(100), 2, 8)
    assert lanes.updates_in(1) == 6
    assert lanes.updates_in(0.001) == 1


def test_a_text_too_short_is_refused_with_what_would_do():
    with pytest.raises(
        TooShortError, match=r"unroll_length 512 does not fit: 19,264 training characters over 64 lanes "
    ):
        Lanes(TokenStream(np.zeros(19264, np.uint8), np.zeros(1, np.int64)), 64, 512)
    with pytest.raises(TooShortError, match="do not fill 64 lanes"):
        Lanes(stream_of(10), 64, 8)


@pytest.mark.parametrize("read", ["circular", "lanes"])
def test_an_id_beyond_the_vocabulary_is_refused_where_it_is_read(read):
    damaged = TokenStream(np.array([0, 1, 2, 9, 1, 0, 2, 1], np.uint8), np.zeros(1, np.int64), vocab_size=3)
    before, after = damaged.split(3)
    assert before.circular(-1, 7).tolist() == [2, 0, 1, 2, 0, 1, 2]
    with pytest.raises(SourceError, match="has id 9, and only 3 characters"):
        after.circular(0, 2) if read == "circular" else Lanes(damaged, 2, 2).block(0, 2, 2)
