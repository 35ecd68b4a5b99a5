"""`POST /v1/score` and `POST /v1/next`."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import charloom
from charloom.settings import TextSettings
from charloom.text import Vocabulary, count_lines, iter_lines
from tests.server.conftest import LETTERS, model_of


@pytest.fixture(scope="module")
def model(model_files):
    return charloom.load(model_files["letters"])


def score(api, **body):
    answer = api.post("/v1/score", body)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def test_scores_equal_those_of_the_model(api, model):
    texts = ["to be or not", "", "that is\nthe question"]
    for found, text in zip(score(api, input=texts), texts, strict=True):
        expected = model.score(text)
        assert found["characters"] == len(text)
        if text:
            assert found["nats_per_char"] == pytest.approx(expected.nats_per_char, abs=1e-5)
            assert found["bits_per_char"] == pytest.approx(expected.bits_per_char, abs=1e-5)
            assert found["perplexity_per_char"] == pytest.approx(expected.perplexity_per_char, rel=1e-4)
        else:
            assert found["nats_per_char"] is None
    (prompted,) = score(api, input="that", prompt="not ")
    assert prompted["nats_per_char"] == pytest.approx(model.score("that", prompt="not ").nats_per_char, abs=1e-5)


def test_each_line_has_a_separate_score(api, model):
    (found,) = score(api, input="to be\nor not\nthat", per="line")
    assert [line["text"] for line in found["lines"]] == ["to be", "or not", "that"]
    for line, text in zip(found["lines"], ("to be\n", "or not\n", "that"), strict=True):
        expected = model.score(text)
        assert (line["characters"], line["unknown"]) == (len(text), 0)
        assert line["nats"] == pytest.approx(expected.total_nats, abs=1e-4)
        assert line["peak_bits"] == pytest.approx(expected.peak_bits, abs=1e-4)
    assert found["nats_per_char"] == pytest.approx(sum(line["nats"] for line in found["lines"]) / found["characters"])


def test_characters_have_scores_and_top_predictions(api, model):
    (found,) = score(api, input="to be", per="char", top_predictions=2)
    expected = model.score("to be", top_predictions=2)
    chars = found["chars"]
    assert chars["characters"] == list("to be")
    assert chars["bits"] == pytest.approx(expected.bits.tolist(), abs=1e-4)
    for top_predictions, ids in zip(chars["top_predictions"], expected.top_predictions.token_ids.tolist(), strict=True):
        assert [char for char, _ in top_predictions] == [model.vocabulary.characters[one] for one in ids]
    (of_bytes,) = score(api, model="bytes", input="é", per="char")
    assert of_bytes["chars"]["characters"] == ["bytes:\\xc3", "bytes:\\xa9"]


def test_a_record_may_have_one_end(api, model_files):
    names = charloom.load(model_files["names"])
    with_end, without = score(api, model="names", input=["ab\n", "ab"])
    assert with_end == without | {"index": 0}
    assert without["characters"] == names.score("ab").characters == 3
    answer = api.post("/v1/score", {"model": "names", "input": "ab\n\n"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input")
    assert "a record ends inside" in answer.json()["error"]["message"]


def test_unknown_characters_are_refused_or_counted(api):
    answer = api.post("/v1/score", {"input": "née"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input")
    assert '"unknown": "replace"' in answer.json()["error"]["message"]
    assert score(api, input="née", unknown="replace")[0]["unknown"] == 1
    assert score(api, input="née", unknown="skip")[0]["characters"] == 2


def test_next_characters_equal_those_of_the_model(api, model):
    answer = api.post("/v1/next", {"prompt": "to b"}).json()
    expected = model.next("to b")
    assert [(one["char"], pytest.approx(one["prob"], abs=1e-5)) for one in answer["data"]] == expected.top(28)
    assert math.fsum(one["prob"] for one in answer["data"]) == pytest.approx(1)
    entropy = -sum(p * math.log2(p) for p in expected.probs.astype(float))
    assert answer["entropy_bits"] == pytest.approx(entropy, abs=1e-4)
    top = api.post("/v1/next", {"prompt": "to b", "top": 3}).json()
    assert top["data"] == answer["data"][:3]
    typed = api.post("/v1/next", {"prompt": "to be"}).json()  # from the cached state after "to b"
    assert typed["data"][0]["prob"] == pytest.approx(model.next("to be").top(1)[0][1], abs=1e-5)


def test_the_size_of_a_request_is_counted_by_its_line_ends(api, model_files):
    """Lines also end with carriage returns, and records with their delimiter."""
    of_words = model_of(
        vocabulary=Vocabulary("chars", LETTERS, "\x1e"), text=TextSettings(delimiter="END", lowercase=True)
    )
    prompt = "a" * 20_000
    for input_ in ("\r" * 20_000, "\r\n" * 20_000, "\n" * 20_000):
        for model in ("letters", "names"):
            answer = api.post("/v1/score", {"input": input_, "per": "line", "prompt": prompt, "model": model})
            error = answer.json()["error"]
            assert (answer.status_code, error["code"], error["param"]) == (400, "too_much", "prompt")
            assert "of the prompt before each of 20,000 pieces, but at most 1,000,000 are allowed" in error["message"]
    answer = api.post("/v1/score", {"input": "\r" * 20_000, "per": "line", "prompt": "\u20ac" * 20, "model": "bytes"})
    assert answer.status_code == 200  # a model of bytes reads it as one line
    for text in ("END" * 100, "aendbEndc", "a\nEND\n"):
        settings = of_words.text
        assert count_lines(text, settings) == sum(map(len, iter_lines([text.encode()], "", settings)))


@pytest.mark.parametrize("delimiter", [None, "\n", "\r\n", "aa", "aBa", "END"])
@pytest.mark.parametrize("lowercase", [False, True])
@hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=st.text("aAbB\n\r\u2028END", max_size=40))
def test_counted_lines_equal_split_lines(delimiter, lowercase, text):
    settings = TextSettings(delimiter=delimiter, lowercase=lowercase)
    assert count_lines(text, settings) == sum(map(len, iter_lines([text.encode()], "", settings)))


def test_a_large_response_is_complete(api, model):
    text = "to be or not to be that is " * 1_000
    (found,) = score(api, input=text, per="char", top_predictions=2)
    expected = model.score(text, top_predictions=2)
    assert found["chars"]["characters"] == list(text)
    assert found["chars"]["bits"] == pytest.approx(expected.bits.tolist(), abs=1e-4)
    assert len(found["chars"]["top_predictions"]) == len(text)
    probs = [[prob for _, prob in pairs] for pairs in found["chars"]["top_predictions"]]
    np.testing.assert_allclose(probs, np.exp(expected.top_predictions.log_probs), atol=1e-5)
    (by_line,) = score(api, input="to be\n" * 5_000, per="line")
    assert [line["line"] for line in by_line["lines"]] == list(range(1, 5_001))


def test_errors_name_the_field(api):
    for path, body, param in [
        ("/v1/score", {}, "input"),
        ("/v1/score", {"input": "a", "per": "word"}, "per"),
        ("/v1/score", {"input": "a", "by": "peak"}, "by"),
        ("/v1/score", {"input": ["a"] * 2000}, "input"),
        ("/v1/score", {"input": "a" * 70_000}, "input"),
        ("/v1/score", {"input": "a", "top_predictions": 99}, "top_predictions"),
        ("/v1/score", {"input": "a", "top_predictions": -1, "per": "char"}, "top_predictions"),
        ("/v1/score", {"input": "a" * 60_000, "top_predictions": 20, "per": "char"}, "top_predictions"),
        ("/v1/score", {"input": []}, "input"),
        ("/v1/score", {"input": [1]}, "input[0]"),
        ("/v1/score", {"input": "a", "prompt": "a" * 70_000}, "prompt"),
        ("/v1/score", {"input": ["a"] * 1000, "prompt": "a" * 2_000}, "prompt"),
        ("/v1/score", {"input": "a", "prompt": None}, "prompt"),
        ("/v1/next", {"prompt": "a", "top": 0}, "top"),
        ("/v1/next", {"prompt": "a", "top": 10**30}, "top"),
        ("/v1/next", {"prompt": "a" * 70_000}, "prompt"),
        ("/v1/next", {"prompt": "\u00e9"}, "prompt"),
        ("/v1/next", {"model": "names", "prompt": "a\nb"}, "prompt"),
    ]:
        answer = api.post(path, body)
        assert answer.status_code == 400, body
        error = answer.json()["error"]
        assert error["param"] == param, error
