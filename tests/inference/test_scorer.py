from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charloom.inference import Scorer
from charloom.models import Network
from charloom.settings import NetworkSettings, TextSettings
from charloom.text import Vocabulary
from tests.reference import NumpyNetwork

LETTERS = "\nabcdefg"
VOCABULARY = Vocabulary("chars", LETTERS)
SHAPES = [
    NetworkSettings(cell=cell, hidden=hidden, layers=layers, embedding=5)
    for cell, hidden, layers in (("lstm", 33, 1), ("lstm", 16, 2), ("gru", 20, 1), ("elman", 20, 2))
]


def network_of(shape, vocab_size=8, start_id=0):
    network = Network.init(shape, vocab_size, start_id, np.random.default_rng(3))
    head = network.head
    return type(network)(
        network.embedding,
        network.cells,
        type(head)(head.kernel * 4, head.bias),
        network.inputs,
        network.vocab_size,
        network.start_id,
    )


def text_of(length, seed=0):
    return "".join(np.random.default_rng(seed).choice(list(LETTERS), length))


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.cell}-{shape.layers}x{shape.hidden}")
def test_scores_equal_the_equations(shape):
    network = network_of(shape)
    reference, scorer = NumpyNetwork(network), Scorer(network, VOCABULARY, TextSettings())
    # One text at a time and many in parallel, with all kinds of lengths.
    for texts in ([text_of(1)], [text_of(150, 1)], [text_of(length, length) for length in range(1, 140, 2)]):
        for text, score in zip(texts, scorer.score(texts), strict=True):
            assert score.text == text
            np.testing.assert_allclose(score.nats, reference.nats(VOCABULARY.encode(text)), atol=1e-5)


@given(cuts=st.lists(st.integers(0, 300), max_size=6))
@settings(max_examples=25, deadline=None)
def test_splitting_a_text_does_not_change_its_score(cuts):
    network = network_of(SHAPES[0])
    scorer, text = Scorer(network, VOCABULARY, TextSettings()), text_of(300)
    (whole,) = scorer.begin().score(text)
    bounds = [0, *sorted(cuts), 300]
    incremental = scorer.begin()
    parts = [incremental.score(text[a:b])[0].nats for a, b in pairwise(bounds)]
    np.testing.assert_array_equal(np.concatenate(parts), whole.nats)


def test_a_long_text_is_scored_in_several_calls():
    network = network_of(SHAPES[0])
    scorer, text = Scorer(network, VOCABULARY, TextSettings()), text_of(9_000)
    (whole,) = scorer.begin().score(text)
    np.testing.assert_allclose(whole.nats, NumpyNetwork(network).nats(VOCABULARY.encode(text)), atol=1e-5)
    # In a batch with short texts, the score is nearly the same.
    alone, *_ = scorer.score([text, *(text_of(2_000, seed) for seed in range(200))])
    np.testing.assert_allclose(alone.nats, whole.nats, atol=1e-5)


def test_a_prompt_is_read_and_not_scored():
    network = network_of(SHAPES[0])
    prompted = Scorer(network, VOCABULARY, TextSettings(), prompt="abc")
    whole = NumpyNetwork(network).nats(VOCABULARY.encode("abcdefg"))
    for score in (*prompted.score(["defg"] * 3), *prompted.begin().score("defg")):
        np.testing.assert_allclose(score.nats, whole[3:], atol=1e-5)
    # An empty text has nothing to score.
    assert [score.characters for score in prompted.score(["", "a"])] == [0, 1]


def test_a_uniform_model_scores_log2_of_the_vocabulary_size():
    network = Network.init(SHAPES[0], len(LETTERS), 0, None)
    scores = Scorer(network, VOCABULARY, TextSettings()).score([text_of(100), "a"])
    assert [score.bits_per_char for score in scores] == pytest.approx([3, 3])
    assert scores[0].perplexity_per_char == pytest.approx(8)
    np.testing.assert_allclose(scores[0].bits, 3, rtol=1e-6)


def test_top_predictions_are_the_most_likely_tokens_at_each_position():
    network = network_of(SHAPES[0])
    text = text_of(100)
    (score,) = Scorer(network, VOCABULARY, TextSettings()).begin(top_predictions=3).score(text)
    reference = NumpyNetwork(network)
    reference.reset()
    previous = None
    for place, token_id in enumerate(VOCABULARY.encode(text)):
        logits = reference.step(previous)
        best = np.argsort(-logits)[:3]
        log_probs = logits - np.log(np.exp(logits).sum())
        assert score.top_predictions.token_ids[place].tolist() == best.tolist()
        np.testing.assert_allclose(score.top_predictions.log_probs[place], log_probs[best], atol=1e-5)
        previous = token_id


def test_unknown_characters_are_counted():
    network = network_of(SHAPES[0])
    for policy, text, characters in (("skip", "abc", 3), ("replace", "axbyc", 5)):
        scorer = Scorer(network, VOCABULARY, TextSettings(), unknown=policy)
        (score,) = scorer.score(["axbyc"])
        assert (score.text, score.characters, score.unknown) == (text, characters, 2)
        assert scorer.unknown == {"x": 1, "y": 1}
    replaced = Scorer(network, VOCABULARY, TextSettings(), unknown="replace").score(["axb"])[0]
    stand_in = f"a{VOCABULARY.replacement}b"
    np.testing.assert_array_equal(replaced.nats, Scorer(network, VOCABULARY, TextSettings()).score([stand_in])[0].nats)


def test_bytes_are_scored_one_by_one():
    network = network_of(SHAPES[0], vocab_size=256, start_id=10)
    scorer = Scorer(network, Vocabulary.of_bytes(), TextSettings(units="bytes"))
    by_text, by_bytes = scorer.score(["über", "über".encode()])
    assert by_text.text == by_bytes.text == "über".encode()
    np.testing.assert_array_equal(by_text.nats, by_bytes.nats)
    np.testing.assert_allclose(by_text.nats, NumpyNetwork(network).nats(list("über".encode())), atol=1e-5)
