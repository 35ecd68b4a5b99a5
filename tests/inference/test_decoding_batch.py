import numpy as np
import pytest

from charloom.inference import DecodingBatch, read_prompt
from charloom.settings import SamplingSettings
from tests.inference.test_generation import ids_of, make

RULES = [
    SamplingSettings(temperature=1.0),
    SamplingSettings(temperature=0),
    SamplingSettings(temperature=1.5, top_k=6, top_p=0.9),
]


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(("cell", "layers"), [("lstm", 2), ("gru", 1), ("mingru", 2)])
def test_a_text_is_independent_of_the_other_texts_in_the_batch(cell, layers):
    network = make(layers, cell=cell)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, 11, rng.integers(0, 9)).astype(np.uint8) for _ in range(14)]
    lengths = rng.integers(1, 90, len(prompts)).tolist()
    lengths[3] = 200
    states = [read_prompt(network, prompt) for prompt in prompts]
    texts = DecodingBatch.for_state(network, states[0])
    waiting, here = list(range(len(prompts))), []
    generated = [[] for _ in prompts]
    while waiting or here:
        for _ in range(int(rng.integers(0, 4)) if waiting else 0):
            if waiting:
                index = waiting.pop()
                texts.add(states[index], RULES[index % 3], 5, [index])
                here.append(index)
        assert len(texts) == len(here)
        if here:
            steps, first = int(rng.integers(1, 70)), int(rng.integers(len(here)))
            slots = slice(first, int(rng.integers(first + 1, len(here) + 1)))
            for index, tokens in zip(here[slots], texts.generate(steps, slots).tolist(), strict=True):
                generated[index] += tokens
        for slot in reversed(range(len(here))):
            if len(generated[here[slot]]) >= lengths[here[slot]]:
                texts.remove(slot)
                here[slot] = here[-1]
                here.pop()
    for index, prompt in enumerate(prompts):
        alone = ids_of(network, prompt, lengths[index], RULES[index % 3], seed=5, stream_index=index)
        assert generated[index][: lengths[index]] == alone


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("layers", [1, 2])
def test_a_text_continues_from_its_state_in_another_batch(layers):
    network, rule = make(layers), RULES[0]
    state = read_prompt(network, np.array([1, 2], np.uint8))
    texts = DecodingBatch.for_state(network, state)
    texts.add(state, rule, 1, [0, 1])
    first = texts.generate(20)[1].tolist()
    logits, middle = texts.logits(1).copy(), texts.state(1)
    texts.generate(3)  # does not change the copied state
    others = DecodingBatch.for_state(network, middle)
    others.add(middle, rule, 1, [1], position=20)
    np.testing.assert_array_equal(others.logits(0), logits)
    assert first + others.generate(30)[0].tolist() == ids_of(network, [1, 2], 50, rule, seed=1, stream_index=1)
