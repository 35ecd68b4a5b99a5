"""`POST /v1/completions`, with OpenAI's client and without it."""

import json
import math
import threading

import pytest
from openai import BadRequestError, NotFoundError, OpenAI

import charloom
from charloom.settings import SamplingSettings


@pytest.fixture(scope="module")
def openai(api):
    return OpenAI(base_url=f"{api.url}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def model(model_files):
    return charloom.load(model_files["letters"])


def test_openais_client_gets_the_text_of_generate(openai, model):
    assert [one.id for one in openai.models.list()] == ["letters", "names", "bytes"]
    assert openai.models.retrieve("names").id == "names"
    asked = {"model": "letters", "prompt": "to be ", "max_tokens": 150, "temperature": 0.7, "top_p": 0.9, "seed": 11}
    done = openai.completions.create(**asked)
    text = model.generate("to be ", 150, temperature=0.7, top_p=0.9, seed=11)
    assert done.choices[0].text == text.removeprefix("to be ")
    assert done.choices[0].finish_reason == "length"
    assert (done.usage.prompt_tokens, done.usage.completion_tokens, done.usage.total_tokens) == (6, 150, 156)
    stream = list(openai.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(event.choices[0].text for event in stream[:-1]) == done.choices[0].text
    assert [event.choices[0].finish_reason for event in stream[:-1]] == [None] * (len(stream) - 2) + ["length"]
    assert stream[-1].choices == []
    assert stream[-1].usage.total_tokens == 156
    with pytest.raises(NotFoundError, match=r"This server has no model 'gpt-5'\. It has: letters, names, bytes"):
        openai.completions.create(model="gpt-5", prompt="")
    with pytest.raises(BadRequestError, match="not among this model's 28 characters"):
        openai.completions.create(model="letters", prompt="née")


def test_defaults_are_openais(api, model):
    done = api.complete("a")
    assert len(done["choices"][0]["text"]) == 16
    repeated = api.complete("a", seed=done["seed"])
    assert repeated["choices"] == done["choices"]
    assert repeated["choices"][0]["text"] == model.generate("a", 16, temperature=1.0, seed=done["seed"])[1:]
    assert api.complete("a")["seed"] != done["seed"]
    assert api.complete(None, seed=1, max_tokens=5)["choices"] == api.complete("", seed=1, max_tokens=5)["choices"]


def test_several_prompts_and_texts_of_each(api, model):
    done = api.complete(["ab", "cd "], n=2, seed=3, max_tokens=40)
    rule = SamplingSettings(temperature=1.0)
    expected = [
        "".join(model.prompted(prompt).stream(40, rule, seed=3, stream_index=index))
        for prompt in ("ab", "cd ")
        for index in range(2)
    ]
    assert [choice["text"] for choice in done["choices"]] == expected
    assert [choice["index"] for choice in done["choices"]] == [0, 1, 2, 3]
    assert done["usage"] == {"prompt_tokens": 5, "completion_tokens": 160, "total_tokens": 165}


def events_of(answer):
    assert answer.headers["content-type"].startswith("text/event-stream")
    parts = answer.text.split("\n\n")
    assert parts[-2:] == ["data: [DONE]", ""]
    return [json.loads(part.removeprefix("data: ")) for part in parts[:-2]]


def test_a_text_does_not_depend_on_other_requests(api):
    asked = {"max_tokens": 400, "stream": True}
    prompts = [f"{'abcdefgh'[number % 8]}{'xyz'[number % 3]}" for number in range(40)]

    def text_of(number):
        body = {"prompt": prompts[number], "seed": number, **asked, "max_tokens": 100 + 7 * number}
        events = events_of(api.post("/v1/completions", body))
        return "".join(event["choices"][0]["text"] for event in events)

    alone = [text_of(number) for number in range(0, 40, 5)]
    together = [""] * 40

    def run(number):
        together[number] = text_of(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together[::5] == alone
    assert [len(text) for text in together] == [100 + 7 * number for number in range(40)]


def test_texts_end_before_a_stop_text(api, model):
    whole = api.complete("a", seed=5, max_tokens=300)["choices"][0]["text"]
    stop = whole[40:43]
    done = api.complete("a", seed=5, max_tokens=300, stop=["never that", stop])["choices"][0]
    assert (done["text"], done["finish_reason"]) == (whole[: whole.index(stop)], "stop")
    body = {"prompt": "a", "seed": 5, "max_tokens": 300, "stop": stop, "stream": True}
    events = events_of(api.post("/v1/completions", body))
    assert "".join(event["choices"][0]["text"] for event in events) == done["text"]


def test_a_record_ends_at_its_end_token(api, model_files):
    names = charloom.load(model_files["names"])
    for seed in range(5):
        done = api.complete("a", model="names", seed=seed, max_tokens=500)["choices"][0]
        assert done["text"] == names.generate("a", 500, temperature=1.0, seed=seed)[1:]
        assert done["finish_reason"] == "stop"


def byte_of(token):
    return bytes([int(token[-2:], 16)]) if token.startswith("bytes:") else token.encode()


@pytest.mark.parametrize("name", ["letters", "bytes"])
def test_logprobs_equal_those_of_score(api, model_files, name):
    asked = {"model": name, "seed": 2, "max_tokens": 30, "echo": True, "logprobs": 3}
    done = api.complete("abc ", **asked)["choices"][0]
    found = done["logprobs"]
    tokens = done["text"] if name == "letters" else b"".join(map(byte_of, found["tokens"]))
    expected = (-charloom.load(model_files[name]).score(tokens).nats).tolist()
    assert found["token_logprobs"] == [
        None,
        *(pytest.approx(one, abs=1e-4) for one in expected[1:]),
    ]  # as in OpenAI's API
    assert found["top_logprobs"][0] is None
    assert len(found["tokens"]) == 34
    if name == "letters":
        assert found["text_offset"] == list(range(34))
    columns = (found["token_logprobs"][1:], found["top_logprobs"][1:], found["tokens"][1:])
    for logprob, top, token in zip(*columns, strict=True):
        assert len(top) == 3 + (token not in list(top)[:3])  # as in OpenAI's API, including the sampled token
        assert list(top.values())[:3] == sorted(top.values(), reverse=True)[:3]
        assert top[token] == logprob
        assert math.fsum(math.exp(one) for one in top.values()) <= 1 + 1e-5
    if name == "letters":
        assert "".join(found["tokens"]) == done["text"]
    body = {"prompt": "abc ", "stream": True, **asked}
    events = events_of(api.post("/v1/completions", body))
    assert "".join(event["choices"][0]["text"] for event in events) == done["text"]
    for column, whole in found.items():
        assert [one for event in events for one in event["choices"][0]["logprobs"][column]] == whole


def test_a_prompt_without_completion_is_scored(api, model):
    done = api.complete("abc", max_tokens=0, echo=True, logprobs=0)["choices"][0]
    assert done["text"] == "abc"
    expected = (-model.score("abc").nats).tolist()
    assert done["logprobs"]["token_logprobs"] == [None, *(pytest.approx(one, abs=1e-4) for one in expected[1:])]
    assert done["logprobs"]["top_logprobs"] is None
    assert api.complete("abc", max_tokens=0)["choices"][0]["text"] == ""


def test_cached_prefixes_are_not_read_again(api):
    begin = api.metric("charloom_prefix_hits")
    first = api.complete("quite some length ", seed=1, max_tokens=50)
    text = first["choices"][0]["text"]
    again = api.complete("quite some length ", seed=1, max_tokens=50)
    gone_on = api.complete(f"quite some length {text}", seed=2, max_tokens=50)
    assert api.metric("charloom_prefix_hits") == begin + 2
    assert again["choices"] == first["choices"]
    fresh = api.complete(f"quite some length {text}", seed=2, max_tokens=50, echo=True, logprobs=0)
    assert fresh["choices"][0]["text"].endswith(gone_on["choices"][0]["text"])


REFUSED = {
    "temperature": ([-1, "hot", 1e9, True], "temperature"),
    "top_p": ([1.5, -0.1], "top_p"),
    "n": ([0, 1.5, 1000], "n"),
    "max_tokens": ([-1, 10**9, 40_000], "max_tokens"),
    "seed": ([-(2**63) - 1, 2**63, "x"], "seed"),
    "stop": (["", [""], 5], "stop"),
    "logprobs": ([21, -1], "logprobs"),
    "prompt": (
        [5, [], ["a", 1], [1, ["a"]], [[1], "a"], [28], [[1], [0, 99]], [-1], [2**31], [True], {"a": 1}, "x" * 70_000],
        "prompt",
    ),
    "suffix": (["end"], "suffix"),
    "presence_penalty": ([0.5], "presence_penalty"),
    "logit_bias": ([{"50256": -100}], "logit_bias"),
    "best_of": ([3], "best_of"),
    "unknown": (["perhaps"], "unknown"),
    "stream_options": ([5], "stream_options"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_invalid_fields_are_refused_by_name(api, name):
    values, param = REFUSED[name]
    for value in values:
        answer = api.post("/v1/completions", {"prompt": "a", name: value})
        assert answer.status_code == 400, value
        error = answer.json()["error"]
        assert error["type"] == "invalid_request_error"
        assert error["param"].startswith(param), error
        assert param in error["message"]


def test_fields_that_change_nothing_are_accepted(api):
    neutral = {
        "presence_penalty": 0,
        "frequency_penalty": 0.0,
        "logit_bias": {},
        "best_of": 2,
        "suffix": "",
        "user": "x",
    }
    body = {"seed": 4, "n": 2, "top_p": 1, "stop": None, "logprobs": None}
    assert api.complete("a", **body, **neutral)["choices"] == api.complete("a", seed=4, n=2)["choices"]


def test_unknown_characters_are_handled_as_in_generate(api, model):
    assert api.complete("née", unknown="skip", echo=True, seed=1)["choices"][0]["text"].startswith("ne")
    done = api.complete("née", unknown="replace", seed=1, max_tokens=20)["choices"][0]["text"]
    assert done == model.generate("née", 20, temperature=1.0, seed=1, unknown="replace").removeprefix("n e")


def test_the_reference_serves_the_same_api(model_files, tmp_path, model):
    from tests.server.conftest import serving

    with serving(tmp_path, model_files["letters"], CHARLOOM_KERNELS="reference") as server:
        done = server.complete("ab", seed=3, max_tokens=200, logprobs=1)["choices"][0]
        assert len(done["text"]) == 200
        assert server.complete("ab", seed=3, max_tokens=200)["choices"][0]["text"] == done["text"]
        assert len(done["logprobs"]["tokens"]) == 200


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("echo", [False, True])
def test_text_offsets_of_bytes_are_those_of_their_characters(api, seed, echo):
    asked = {"model": "bytes", "seed": seed, "max_tokens": 60, "logprobs": 0, "echo": echo}
    done = api.complete("né ", **asked)
    choice, usage = done["choices"][0], done["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (4, 60)
    found = choice["logprobs"]
    data = b"".join(map(byte_of, found["tokens"]))
    assert len(data) == 60 + 4 * echo
    assert data.decode("utf-8", "replace") == choice["text"]
    # Offsets are counted from the beginning of the prompt, whether it is echoed or not.
    whole = choice["text"] if echo else f"né {choice['text']}"
    before = b"" if echo else "né ".encode()
    for at, place in enumerate(found["text_offset"]):
        # The text before a byte is complete, or the byte continues the character that begins there.
        assert place <= len((before + data[:at]).decode("utf-8", "replace")) <= place + 1
    assert place < len(whole)
    assert found["text_offset"] == sorted(found["text_offset"])
    # With a stop text, no token lies after the returned text.
    stop = choice["text"][40:42]
    first = choice["text"].index(stop, 3 * echo)
    stopped = api.complete("né ", **asked, stop=stop)
    text, tokens = stopped["choices"][0]["text"], stopped["choices"][0]["logprobs"]["tokens"]
    assert text == choice["text"][:first]
    assert tokens == found["tokens"][: len(tokens)]
    assert stopped["usage"]["completion_tokens"] == len(tokens) - 4 * echo
    assert b"".join(map(byte_of, tokens)).decode("utf-8", "replace").startswith(text)
    assert len(b"".join(map(byte_of, tokens)).decode("utf-8", "replace")) <= len(text) + 1


def test_negative_seeds_and_top_p_close_to_one(api):
    assert api.complete("a", seed=-5)["choices"] == api.complete("a", seed=2**63 - 5)["choices"]
    whole = api.complete("a", seed=3, max_tokens=200)["choices"]
    assert api.complete("a", seed=3, max_tokens=200, top_p=0.99999999)["choices"] == whole


def test_text_offsets_are_counted_from_the_prompt(openai):
    for echo, first in [(False, 4), (True, 0)]:
        done = openai.completions.create(
            model="letters", prompt="abc ", max_tokens=3, seed=1, echo=echo, logprobs=2, temperature=0
        )
        logprobs = done.choices[0].logprobs
        assert logprobs.text_offset == list(range(first, 7))
        # The most likely comes first. Greedy sampling takes it, so there are only two.
        assert [next(iter(top)) for top in logprobs.top_logprobs[-3:]] == logprobs.tokens[-3:]
        assert [len(top) for top in logprobs.top_logprobs[-3:]] == [2, 2, 2]
    only = (
        openai.completions.create(model="letters", prompt="", max_tokens=3, echo=True, logprobs=0).choices[0].logprobs
    )
    assert only.top_logprobs is None
    assert None not in only.token_logprobs  # nothing was echoed


def test_prompts_of_token_ids(openai, api, model):
    ids = model.vocabulary.encode("to be ").tolist()
    asked = {"model": "letters", "max_tokens": 20, "seed": 4}
    text = openai.completions.create(prompt="to be ", **asked)
    of_ids = openai.completions.create(prompt=ids, **asked)
    assert (of_ids.choices, of_ids.usage) == (text.choices, text.usage)
    several = openai.completions.create(prompt=[ids, ids[:2], []], **asked).choices
    texts = openai.completions.create(prompt=["to be ", "to", ""], **asked).choices
    assert several == texts
    # Bytes that are not UTF-8 are a valid prompt.
    done = api.complete([0xC3, 0xA9, 0xFF], model="bytes", echo=True, max_tokens=0, logprobs=0)["choices"][0]
    assert done["text"] == "é\ufffd"
    assert done["logprobs"]["tokens"] == ["bytes:\\xc3", "bytes:\\xa9", "bytes:\\xff"]
    answer = api.post("/v1/completions", {"prompt": [1, 28]})
    assert answer.json()["error"]["message"] == (
        "prompt has the token id 28 at index 1, but this model's ids are 0 to 27."
    )
    of_records = api.post("/v1/completions", {"model": "names", "prompt": [1, 0, 2]})
    assert (of_records.status_code, of_records.json()["error"]["param"]) == (400, "prompt")  # the newline ends a record


def test_a_prompt_of_many_texts_is_read_once(api):
    begin = api.metric("charloom_prefix_misses") + api.metric("charloom_prefix_hits")
    prompt = "wwxx yy " * 50
    done = api.complete(prompt, n=50, max_tokens=5, seed=1)
    assert api.metric("charloom_prefix_misses") + api.metric("charloom_prefix_hits") == begin + 1
    alone = api.complete(prompt, n=1, max_tokens=5, seed=1)
    assert alone["choices"][0] == done["choices"][0]


def test_large_responses_are_refused(api):
    answer = api.post("/v1/completions", {"prompt": "a", "n": 100, "max_tokens": 5_000, "logprobs": 5})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "answer_too_long"


def test_a_model_with_min_count_never_generates_the_unknown_character(model_files, tmp_path):
    from charloom.settings import TextSettings
    from charloom.text import Vocabulary
    from tests.server.conftest import LETTERS, model_of, serving

    model = model_of(vocabulary=Vocabulary("chars", LETTERS + "\ufffd"), text=TextSettings(min_count=2))
    model.save(tmp_path / "rare.safetensors")
    with serving(tmp_path, tmp_path / "rare.safetensors") as server:
        done = server.complete("a", seed=1, max_tokens=3_000)["choices"][0]["text"]
        assert done == model.generate("a", 3_000, temperature=1.0, seed=1)[1:]
        assert "\ufffd" not in done
        found = server.post("/v1/next", {"prompt": "a"}).json()["data"]
        assert next(one["prob"] for one in found if one["char"] == "\ufffd") == 0


def test_a_model_of_a_cell_without_native_kernels(tmp_path):
    from tests.server.conftest import model_of, serving

    model = model_of(cell="mingru", layers=2)
    model.save(tmp_path / "mingru.safetensors")
    with serving(tmp_path, tmp_path / "mingru.safetensors") as server:
        done = server.complete("abcdef", seed=1, max_tokens=70, n=2)["choices"]
        assert done[0]["text"] == model.generate("abcdef", 70, temperature=1.0, seed=1)[6:]
        (first, *_) = server.post("/v1/next", {"prompt": "abcdef", "top": 1}).json()["data"]
        assert first["prob"] == pytest.approx(model.next("abcdef").top(1)[0][1], abs=1e-5)
        (score,) = server.post("/v1/score", {"input": "abcdef"}).json()["data"]
        assert score["bits_per_char"] == pytest.approx(model.score("abcdef").bits_per_char, abs=1e-5)


def test_a_model_of_windows(tmp_path):
    from dataclasses import replace

    from tests.server.conftest import model_of, serving

    model = replace(model_of(), training={"window": 4})
    model.save(tmp_path / "window.safetensors")
    with serving(tmp_path, tmp_path / "window.safetensors") as server:
        done = server.complete("abcdef", seed=1, max_tokens=70, n=2, logprobs=1)["choices"]
        assert done[0]["text"] == model.generate("abcdef", 70, temperature=1.0, seed=1)[6:]
        assert server.post("/v1/completions", {"prompt": "abc"}).status_code == 400
        rated = server.post("/v1/completions", {"prompt": "abcdef", "echo": True, "logprobs": 0})
        assert (rated.status_code, rated.json()["error"]["param"]) == (400, "logprobs")
        (first, *_) = server.post("/v1/next", {"prompt": "abcdef", "top": 1}).json()["data"]
        assert first["prob"] == pytest.approx(model.next("abcdef").top(1)[0][1], abs=1e-5)
