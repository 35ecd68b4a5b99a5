import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from charloom.data import Packing

UNROLL, CAPACITY = 4, 3


@given(lengths=st.lists(st.integers(0, 40), max_size=30), lanes=st.integers(1, 6))
def test_every_text_is_read_once_from_its_beginning(lengths, lanes):
    # Each token tells of which text it is, and at which place.
    texts = [np.arange(length) + 100 * number for number, length in enumerate(lengths)]
    packing = Packing.of_lengths(lengths, lanes)
    assert sorted(place for places in packing.lanes for place in places) == list(range(len(texts)))
    read = [[] for _ in range(lanes)]
    begun = [[] for _ in range(lanes)]
    for block in packing.blocks(texts, CAPACITY, UNROLL):
        for lane in range(lanes):
            ids = block.token_ids[: block.updates, lane]
            scored = block.scored[: block.updates, lane].flatten()
            # What a step predicts is what the next one reads, unless a text begins there.
            read[lane] += ids[:, 1:].flatten()[scored].tolist()
            begun[lane] += block.resets[: block.updates, lane].flatten()[scored].tolist()
            inner = ~block.resets[: block.updates, lane].flatten()[scored]
            before, after = ids[:, :-1].flatten()[scored], ids[:, 1:].flatten()[scored]
            assert (after[inner] == before[inner] + 1).all()
    for lane, places in enumerate(packing.lanes):
        assert read[lane] == [token for place in places for token in texts[place].tolist()]
        assert [token % 100 == 0 for token in read[lane]] == begun[lane]


def test_lanes_are_about_equally_long():
    lengths = np.random.default_rng(0).integers(1, 200, 500)
    packing = Packing.of_lengths(lengths.tolist(), 64)
    assert packing.steps < 1.02 * lengths.sum() / 64
