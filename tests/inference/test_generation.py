import jax
import jax.numpy as jnp
import numpy as np
import pytest

from charloom.data import TokenStream, evaluation_pass, ordered_pass, record_pass
from charloom.inference import NativeDecoderState, generate_tokens, read_prompt, score_blocks
from charloom.inference.generation import BLOCK_SIZE
from charloom.inference.sampling import SamplingRule, choose, native_samplers, uniforms
from charloom.models import CELLS, Network
from charloom.settings import NetworkSettings, SamplingSettings
from tests.reference import NumpyNetwork


def make(layers=1, start_id=0, vocab=11, hidden=16, **settings):
    network = Network.init(
        NetworkSettings(layers=layers, hidden=hidden, embedding=8, **settings),
        vocab,
        start_id,
        np.random.default_rng(1),
    )
    scale = 1.5 if settings.get("cell") in ("elman", "mingru") else 4  # clear preferences, but no chaotic dynamics
    return jax.tree.map(lambda weight: weight * scale, network)


def ids_of(network, prompt, length, settings, seed=0, stream_index=0):
    state = read_prompt(network, np.array(prompt, np.uint8))
    return np.concatenate(list(generate_tokens(network, state, length, settings, seed, [stream_index])), axis=1)[
        0
    ].tolist()


GREEDY = SamplingSettings(temperature=0)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    ("layers", "start_id", "prompt"), [(1, None, []), (2, 0, [3]), (2, None, list(range(11)) * 13)]
)
def test_greedy_text_equals_the_numpy_reference(cell, layers, start_id, prompt):
    network = make(layers, start_id, cell=cell)
    reference = NumpyNetwork(network)
    logits = reference.step(None)
    for token_id in prompt:
        logits = reference.step(token_id)
    expected = []
    for _ in range(BLOCK_SIZE + 10):
        expected.append(int(logits.argmax()))
        logits = reference.step(expected[-1])
    assert ids_of(network, prompt, BLOCK_SIZE + 10, GREEDY) == expected


@pytest.mark.usefixtures("kernels")
def test_a_text_does_not_depend_on_its_length_or_on_other_streams():
    network, settings = make(), SamplingSettings(temperature=1.2)
    alone = [ids_of(network, [1, 2], 150, settings, seed=5, stream_index=index) for index in range(3)]
    state = read_prompt(network, np.array([1, 2], np.uint8))
    generators = [generate_tokens(network, state, 150, settings, 5, [index]) for index in range(3)]
    together = [[], [], []]
    for blocks in zip(*generators, strict=True):
        for text, block in zip(together, blocks, strict=True):
            text += block[0].tolist()
    assert together == alone
    at_once = np.concatenate(list(generate_tokens(network, state, 150, settings, 5, [2, 0, 1])), axis=1)
    assert at_once.tolist() == [alone[2], alone[0], alone[1]]
    assert len({tuple(text) for text in alone}) == 3
    assert ids_of(network, [1, 2], 70, settings, seed=5) == alone[0][:70]


@pytest.mark.parametrize(
    ("cell", "settings"),
    [
        ("lstm", SamplingSettings(temperature=1.0)),
        ("gru", SamplingSettings(temperature=0.3, top_k=4)),
        ("elman", SamplingSettings(temperature=2.0, top_p=0.7)),
        ("lstm", SamplingSettings(temperature=1.5, top_k=6, top_p=0.9)),
        ("gru", GREEDY),
    ],
)
@pytest.mark.usefixtures("native_library")
def test_native_streams_sample_the_same_tokens_from_equal_logits(cell, settings, monkeypatch):
    monkeypatch.setenv("CHARLOOM_KERNELS", "native")
    network = make(cell=cell, hidden=37)
    state = read_prompt(network, np.array([1, 2], np.uint8))
    assert isinstance(state, NativeDecoderState)
    seed = 3 + (7 << 32)
    draws = uniforms(jnp.array([7, 3], jnp.uint32), jnp.uint32(9), jnp.arange(300, dtype=jnp.uint32))
    rule = SamplingRule.of(settings)
    choose_once = jax.jit(choose)
    streams = jax.tree.map(np.copy, state.streams)
    for position in range(300):
        expected = int(choose_once(streams.logits[0], draws[position], rule))  # before the logits change
        token = np.full((1, 1), -1, np.int32)
        state.generator.run(streams, token, native_samplers(settings, seed, [9], position))
        assert token.tolist() == [[expected]]


@pytest.mark.parametrize(
    "options", [{"gate_activation": "hard_sigmoid"}, {"cell_activation": "relu", "head": "logits"}]
)
@pytest.mark.usefixtures("native_library")
def test_unusual_networks_generate_the_same_text_natively(options, monkeypatch):
    network = make(layers=2, hidden=11, **options)
    texts = []
    for kernels in ("native", "reference"):
        monkeypatch.setenv("CHARLOOM_KERNELS", kernels)
        texts.append(ids_of(network, [1, 2], 100, SamplingSettings(temperature=1.0)))
    assert texts[0] == texts[1]


def test_seeds_above_32_bits_give_other_texts():
    network, settings = make(), SamplingSettings(temperature=1.2)
    low, high = (ids_of(network, [], 40, settings, seed) for seed in (1, 1 + 2**32))
    assert low != high


def test_scores_equal_the_numpy_reference():
    network = make(2)
    ids = np.random.default_rng(0).integers(0, 11, 700).astype(np.uint8)
    expected = NumpyNetwork(network).nats(ids).mean()
    stream = TokenStream.from_documents([ids])
    assert score_blocks(network, ordered_pass(stream)).nats_per_char == pytest.approx(expected, abs=1e-5)
    assert score_blocks(network, evaluation_pass(stream)).nats_per_char == pytest.approx(expected, abs=1e-5)


def test_each_document_is_scored_from_its_beginning():
    network = make()
    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, 11, size).astype(np.uint8) for size in (90, 33))
    reference = NumpyNetwork(network)
    expected = (reference.nats(first).sum() + reference.nats(second).sum()) / 123
    stream = TokenStream.from_documents([first, second])
    for blocks in (ordered_pass(stream), record_pass(stream)):
        assert score_blocks(network, blocks).nats_per_char == pytest.approx(expected, abs=1e-5)


def test_many_rows_give_the_score_of_one_row():
    network = jax.tree.map(lambda weight: weight / 4, make())  # its memory is shorter than the priming
    stream = TokenStream.from_documents([np.random.default_rng(3).integers(0, 11, 5000).astype(np.uint8)])
    assert score_blocks(network, evaluation_pass(stream)).nats_per_char == pytest.approx(
        score_blocks(network, ordered_pass(stream)).nats_per_char, abs=1e-5
    )
