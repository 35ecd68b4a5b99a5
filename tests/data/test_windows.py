import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charloom.data import TokenStream, Windows, contiguous_windows, left_padded, sliding_windows
from charloom.errors import TooShortError


def stream_of(length):
    return TokenStream.from_documents([np.arange(length)])


def read(windows, epoch=0, piece=3):
    """Returns the token ids, scored masks and state resets of an epoch, read in several blocks."""
    first, last = epoch * windows.steps_per_epoch, (epoch + 1) * windows.steps_per_epoch
    blocks = [windows.block(start, min(piece, last - start), capacity=piece + 1) for start in range(first, last, piece)]
    arrays = [(b.token_ids[: b.steps], b.scored[: b.steps], b.state_resets[: b.steps]) for b in blocks]
    return [np.concatenate(blocks) for blocks in zip(*arrays, strict=True)]


@given(st.integers(2, 60), st.integers(1, 6), st.integers(1, 4), st.integers(1, 5), st.booleans(), st.integers(0, 2))
def test_an_epoch_has_every_window_once(length, size, stride, batch_size, shuffled, epoch):
    stream = stream_of(length)
    starts = sliding_windows(stream, size, stride)
    if not len(starts):
        return
    windows = Windows(stream, starts, size, batch_size, shuffle_seed=7 if shuffled else None)
    ids, scored, state_resets = read(windows, epoch)
    assert state_resets.all()
    assert not scored[..., :-1].any()  # only the last prediction is scored
    counted = ids[scored[..., -1]]
    assert sorted(counted[:, 0].tolist()) == starts.tolist()
    for row in counted:
        np.testing.assert_array_equal(row, np.arange(row[0], row[0] + size + 1))
    if not shuffled:
        assert counted[:, 0].tolist() == starts.tolist()


def test_each_epoch_has_another_order_that_the_seed_determines():
    stream = stream_of(200)
    windows = Windows(stream, sliding_windows(stream, 4, 1), 4, 8, shuffle_seed=1)
    first, second = read(windows, 0)[0], read(windows, 1)[0]
    assert (first != second).any()
    np.testing.assert_array_equal(first, read(windows, 0, piece=7)[0])  # the blocks do not matter
    other = Windows(stream, sliding_windows(stream, 4, 1), 4, 8, shuffle_seed=2)
    assert (read(other)[0] != first).any()


@given(st.integers(0, 12), st.integers(1, 12), st.booleans(), st.booleans())
def test_a_block_may_begin_and_end_in_any_epoch(first, steps, stateful, drop_last):
    stream = stream_of(12)
    windows = Windows(
        stream, sliding_windows(stream, 2, 1), 2, 4, shuffle_seed=3, stateful=stateful, drop_last=drop_last
    )
    whole = windows.block(first, steps, capacity=12)
    for at in range(steps):
        single = windows.block(first + at, 1, capacity=1)
        for name in ("token_ids", "scored", "state_resets"):
            np.testing.assert_array_equal(getattr(whole, name)[at], getattr(single, name)[0])


def test_an_incomplete_last_step_can_be_dropped():
    stream = stream_of(12)
    starts = sliding_windows(stream, 2, 1)
    assert len(starts) == 10
    kept = Windows(stream, starts, 2, 4)
    assert kept.steps_per_epoch == 3
    assert read(kept)[1].sum() == 10
    dropped = Windows(stream, starts, 2, 4, drop_last=True)
    assert dropped.steps_per_epoch == 2
    assert read(dropped)[1].sum() == 8


@given(st.integers(8, 200), st.integers(1, 5), st.integers(1, 4))
def test_contiguous_windows_follow_one_another_in_each_row(length, size, batch_size):
    stream = stream_of(length)
    starts = contiguous_windows(stream, size, batch_size)
    row_length, windows = length // batch_size, len(starts) // batch_size
    more = (windows + 1) * size  # what a row would read with one more window
    assert windows * size <= row_length
    assert more > row_length or (batch_size - 1) * row_length + more >= length  # a window has a token after it
    if not len(starts):
        return
    windows = Windows(stream, starts, size, batch_size, last_only=False, stateful=True)
    ids, scored, state_resets = read(windows, epoch=1)
    assert scored.all()
    assert state_resets[0].all()
    assert not state_resets[1:].any()
    for row in range(batch_size):
        inputs = ids[:, row, :-1].reshape(-1)
        np.testing.assert_array_equal(inputs, np.arange(inputs[0], inputs[0] + len(inputs)))
        assert inputs[0] == row * (length // batch_size)
        np.testing.assert_array_equal(ids[:, row, 1:].reshape(-1), inputs + 1)


def test_a_text_without_a_window_is_refused():
    stream = stream_of(3)
    with pytest.raises(TooShortError, match="3 characters give 0 windows of 8, fewer than the 1 that a step needs"):
        Windows(stream, sliding_windows(stream, 8, 1), 8, 2)
    stream = stream_of(6)
    with pytest.raises(TooShortError, match="4 windows of 2, fewer than the 5 that"):
        Windows(stream, sliding_windows(stream, 2, 1), 2, 5, drop_last=True)


@given(st.lists(st.lists(st.integers(1, 9), min_size=2, max_size=9), min_size=1, max_size=6), st.integers(1, 6))
def test_pieces_are_padded_and_cut_on_the_left(pieces, length):
    stream, starts = left_padded([np.array(piece) for piece in pieces], length, pad_id=0)
    for start, piece in zip(starts, pieces, strict=True):
        row = stream.token_ids[start : start + length + 1].tolist()
        kept = piece[-(length + 1) :]
        assert row == [0] * (length + 1 - len(kept)) + kept
