import jax
import numpy as np
import pytest

from charloom.data import TokenStream, evaluation_pass, ordered_pass
from charloom.inference import read_prompt, score_blocks, write
from charloom.inference.generation import BLOCK
from charloom.models import Network
from charloom.settings import NetworkSettings, SamplingSettings
from tests.reference import NumpyNetwork


def make(layers=1, start_id=0, vocab=11, hidden=16):
    network = Network.init(
        NetworkSettings(layers=layers, hidden=hidden, embedding=8), vocab, start_id, jax.random.key(1)
    )
    return jax.tree.map(lambda weight: weight * 4, network)  # opinions of its own


def ids_of(network, prompt, length, settings, seed=0, stream_index=0):
    stream = read_prompt(network, np.array(prompt, np.uint8))
    return np.concatenate(list(write(network, stream, length, settings, seed, stream_index))).tolist()


GREEDY = SamplingSettings(temperature=0)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("start_id", [0, None])
@pytest.mark.parametrize("prompt", [[], [3], list(range(11)) * 13])
def test_greedy_text_is_numpys(layers, start_id, prompt):
    network = make(layers, start_id)
    reference = NumpyNetwork(network)
    logits = reference.step(None)
    for token_id in prompt:
        logits = reference.step(token_id)
    wanted = []
    for _ in range(BLOCK + 10):
        wanted.append(int(logits.argmax()))
        logits = reference.step(wanted[-1])
    assert ids_of(network, prompt, BLOCK + 10, GREEDY) == wanted


def test_a_text_does_not_depend_on_its_length_or_company():
    network, settings = make(), SamplingSettings(temperature=1.2)
    alone = [ids_of(network, [1, 2], 150, settings, seed=5, stream_index=index) for index in range(3)]
    stream = read_prompt(network, np.array([1, 2], np.uint8))
    writers = [write(network, stream, 150, settings, 5, index) for index in range(3)]
    together = [[], [], []]
    for blocks in zip(*writers, strict=True):
        for text, block in zip(together, blocks, strict=True):
            text += block.tolist()
    assert together == alone
    assert len({tuple(text) for text in alone}) == 3
    assert ids_of(network, [1, 2], 70, settings, seed=5) == alone[0][:70]


def test_large_seeds_are_seeds_too():
    network, settings = make(), SamplingSettings(temperature=1.2)
    low, high = (ids_of(network, [], 40, settings, seed) for seed in (1, 1 + 2**32))
    assert low != high


def test_scores_are_numpys():
    network = make(2)
    ids = np.random.default_rng(0).integers(0, 11, 700).astype(np.uint8)
    wanted = NumpyNetwork(network).nats(ids).mean()
    stream = TokenStream.of_documents([ids])
    assert score_blocks(network, ordered_pass(stream)).nats_per_char == pytest.approx(wanted, abs=1e-5)
    assert score_blocks(network, evaluation_pass(stream)).nats_per_char == pytest.approx(wanted, abs=1e-5)


def test_documents_are_scored_from_their_own_beginnings():
    network = make()
    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, 11, size).astype(np.uint8) for size in (90, 33))
    reference = NumpyNetwork(network)
    wanted = (reference.nats(first).sum() + reference.nats(second).sum()) / 123
    got = score_blocks(network, ordered_pass(TokenStream.of_documents([first, second]))).nats_per_char
    assert got == pytest.approx(wanted, abs=1e-5)


def test_many_lanes_score_as_one_lane_does():
    network = jax.tree.map(lambda weight: weight / 4, make())  # forgets within the priming
    stream = TokenStream.of_documents([np.random.default_rng(3).integers(0, 11, 5000).astype(np.uint8)])
    assert score_blocks(network, evaluation_pass(stream)).nats_per_char == pytest.approx(
        score_blocks(network, ordered_pass(stream)).nats_per_char, abs=1e-5
    )
