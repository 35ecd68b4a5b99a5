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
@pytest.mark.parametrize(("cell", "layers"), [("lstm", 2), ("gru", 1)])
def test_each_is_what_it_would_be_alone_whoever_comes_and_goes(cell, layers):
    network = make(layers, cell=cell)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, 11, rng.integers(0, 9)).astype(np.uint8) for _ in range(14)]
    lengths = rng.integers(1, 90, len(prompts)).tolist()
    lengths[3] = 200
    streams = [read_prompt(network, prompt) for prompt in prompts]
    texts = DecodingBatch.after(network, streams[0])
    waiting, here = list(range(len(prompts))), []
    written = [[] for _ in prompts]
    while waiting or here:
        for _ in range(int(rng.integers(0, 4)) if waiting else 0):
            if waiting:
                index = waiting.pop()
                texts.join(streams[index], RULES[index % 3], 5, index)
                here.append(index)
        assert len(texts) == len(here)
        if here:
            steps, first = int(rng.integers(1, 70)), int(rng.integers(len(here)))
            places = slice(first, int(rng.integers(first + 1, len(here) + 1)))
            for index, tokens in zip(here[places], texts.write(steps, places).tolist(), strict=True):
                written[index] += tokens
        for place in reversed(range(len(here))):
            if len(written[here[place]]) >= lengths[here[place]]:
                texts.leave(place)
                here[place] = here[-1]
                here.pop()
    for index, prompt in enumerate(prompts):
        alone = ids_of(network, prompt, lengths[index], RULES[index % 3], seed=5, stream_index=index)
        assert written[index][: lengths[index]] == alone


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("layers", [1, 2])
def test_a_text_can_be_gone_on_from(layers):
    network, rule = make(layers), RULES[0]
    stream = read_prompt(network, np.array([1, 2], np.uint8))
    texts = DecodingBatch.after(network, stream)
    texts.join(stream, rule, 1, 0)
    texts.join(stream, rule, 1, 1)
    first = texts.write(20)[1].tolist()
    logits, gone_on = texts.logits(1).copy(), texts.stream(1)
    texts.write(3)  # which changes nothing of what was taken
    others = DecodingBatch.after(network, gone_on)
    others.join(gone_on, rule, 1, 1, position=20)
    np.testing.assert_array_equal(others.logits(0), logits)
    assert first + others.write(30)[0].tolist() == ids_of(network, [1, 2], 50, rule, seed=1, stream_index=1)
