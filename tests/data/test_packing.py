import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from charloom.data import Packing

SEQUENCE, CAPACITY = 4, 3


@given(lengths=st.lists(st.integers(0, 40), max_size=30), batch_size=st.integers(1, 6))
def test_every_text_is_read_once_from_its_beginning(lengths, batch_size):
    # Each token encodes its text and its position.
    texts = [np.arange(length) + 100 * number for number, length in enumerate(lengths)]
    packing = Packing.from_lengths(lengths, batch_size)
    assert sorted(place for places in packing.rows for place in places) == list(range(len(texts)))
    read = [[] for _ in range(batch_size)]
    begun = [[] for _ in range(batch_size)]
    for block in packing.blocks(texts, CAPACITY, SEQUENCE):
        for row in range(batch_size):
            ids = block.token_ids[: block.steps, row]
            scored = block.scored[: block.steps, row].flatten()
            # A time step reads the target of the step before, unless a text begins there.
            read[row] += ids[:, 1:].flatten()[scored].tolist()
            begun[row] += block.resets[: block.steps, row].flatten()[scored].tolist()
            inner = ~block.resets[: block.steps, row].flatten()[scored]
            before, after = ids[:, :-1].flatten()[scored], ids[:, 1:].flatten()[scored]
            assert (after[inner] == before[inner] + 1).all()
    for row, places in enumerate(packing.rows):
        assert read[row] == [token for place in places for token in texts[place].tolist()]
        assert [token % 100 == 0 for token in read[row]] == begun[row]


def test_rows_have_similar_lengths():
    lengths = np.random.default_rng(0).integers(1, 200, 500)
    packing = Packing.from_lengths(lengths.tolist(), 64)
    assert packing.time_steps < 1.02 * lengths.sum() / 64
