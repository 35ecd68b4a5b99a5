import jax
import jax.numpy as jnp
import numpy as np
import pytest

from charloom.data import TokenStream, evaluation_pass, ordered_pass, record_pass
from charloom.inference import NativeDecoderState, read_prompt, score_blocks, write
from charloom.inference.generation import BLOCK
from charloom.inference.sampling import SamplingRule, choose, native_writers, uniforms
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
    scale = 1.5 if settings.get("cell") == "elman" else 4  # opinions of its own, but no chaos
    return jax.tree.map(lambda weight: weight * scale, network)


def ids_of(network, prompt, length, settings, seed=0, stream_index=0):
    stream = read_prompt(network, np.array(prompt, np.uint8))
    return np.concatenate(list(write(network, stream, length, settings, seed, [stream_index])), axis=1)[0].tolist()


GREEDY = SamplingSettings(temperature=0)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    ("layers", "start_id", "prompt"), [(1, None, []), (2, 0, [3]), (2, None, list(range(11)) * 13)]
)
def test_greedy_text_is_numpys(cell, layers, start_id, prompt):
    network = make(layers, start_id, cell=cell)
    reference = NumpyNetwork(network)
    logits = reference.step(None)
    for token_id in prompt:
        logits = reference.step(token_id)
    wanted = []
    for _ in range(BLOCK + 10):
        wanted.append(int(logits.argmax()))
        logits = reference.step(wanted[-1])
    assert ids_of(network, prompt, BLOCK + 10, GREEDY) == wanted


@pytest.mark.usefixtures("kernels")
def test_a_text_does_not_depend_on_its_length_or_company():
    network, settings = make(), SamplingSettings(temperature=1.2)
    alone = [ids_of(network, [1, 2], 150, settings, seed=5, stream_index=index) for index in range(3)]
    stream = read_prompt(network, np.array([1, 2], np.uint8))
    writers = [write(network, stream, 150, settings, 5, [index]) for index in range(3)]
    together = [[], [], []]
    for blocks in zip(*writers, strict=True):
        for text, block in zip(together, blocks, strict=True):
            text += block[0].tolist()
    assert together == alone
    at_once = np.concatenate(list(write(network, stream, 150, settings, 5, [2, 0, 1])), axis=1)
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
def test_native_streams_choose_as_the_reference_does_from_equal_logits(cell, settings, monkeypatch):
    monkeypatch.setenv("CHARLOOM_KERNELS", "native")
    network = make(cell=cell, hidden=37)
    stream = read_prompt(network, np.array([1, 2], np.uint8))
    assert isinstance(stream, NativeDecoderState)
    seed = 3 + (7 << 32)
    draws = uniforms(jnp.array([7, 3], jnp.uint32), jnp.uint32(9), jnp.arange(300, dtype=jnp.uint32))
    rule = SamplingRule.of(settings)
    choose_once = jax.jit(choose)
    state = jax.tree.map(np.copy, stream.state)
    for position in range(300):
        wanted = int(choose_once(state.logits[0], draws[position], rule))  # before the logits change
        token = np.full((1, 1), -1, np.int32)
        stream.generator.run(state, token, native_writers(settings, seed, [9], position))
        assert token.tolist() == [[wanted]]


@pytest.mark.parametrize(
    "options", [{"gate_activation": "hard_sigmoid"}, {"cell_activation": "relu", "head": "logits"}]
)
@pytest.mark.usefixtures("native_library")
def test_unusual_networks_write_natively_what_the_reference_writes(options, monkeypatch):
    network = make(layers=2, hidden=11, **options)
    texts = []
    for kernels in ("native", "reference"):
        monkeypatch.setenv("CHARLOOM_KERNELS", kernels)
        texts.append(ids_of(network, [1, 2], 100, SamplingSettings(temperature=1.0)))
    assert texts[0] == texts[1]


def test_large_seeds_are_seeds_too():
    network, settings = make(), SamplingSettings(temperature=1.2)
    low, high = (ids_of(network, [], 40, settings, seed) for seed in (1, 1 + 2**32))
    assert low != high


def test_scores_are_numpys():
    network = make(2)
    ids = np.random.default_rng(0).integers(0, 11, 700).astype(np.uint8)
    wanted = NumpyNetwork(network).nats(ids).mean()
    stream = TokenStream.from_documents([ids])
    assert score_blocks(network, ordered_pass(stream)).nats_per_char == pytest.approx(wanted, abs=1e-5)
    assert score_blocks(network, evaluation_pass(stream)).nats_per_char == pytest.approx(wanted, abs=1e-5)


def test_documents_are_scored_from_their_own_beginnings():
    network = make()
    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, 11, size).astype(np.uint8) for size in (90, 33))
    reference = NumpyNetwork(network)
    wanted = (reference.nats(first).sum() + reference.nats(second).sum()) / 123
    stream = TokenStream.from_documents([first, second])
    for blocks in (ordered_pass(stream), record_pass(stream)):
        assert score_blocks(network, blocks).nats_per_char == pytest.approx(wanted, abs=1e-5)


def test_many_rows_score_as_one_row_does():
    network = jax.tree.map(lambda weight: weight / 4, make())  # forgets within the priming
    stream = TokenStream.from_documents([np.random.default_rng(3).integers(0, 11, 5000).astype(np.uint8)])
    assert score_blocks(network, evaluation_pass(stream)).nats_per_char == pytest.approx(
        score_blocks(network, ordered_pass(stream)).nats_per_char, abs=1e-5
    )
