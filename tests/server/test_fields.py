"""Invalid values are refused by the name of the field; unusual valid ones are accepted."""

import json

import pytest

HUGE = 10**40
DEEP = {"completions": {"prompt": "a", "max_tokens": 4}, "score": {"input": "a"}, "next": {"prompt": "a"}}

REFUSED = [
    ("completions", "temperature", ["1e308", "-1e-300", "1e400", "-1", '"1"', "true", "[]", "NaN", "Infinity"]),
    ("completions", "top_p", ["1.0000001", "-1e-300", "1e400", '"1"', "{}"]),
    ("completions", "top_k", ["0", "-1", "2147483648", str(HUGE), "1.5", '"5"']),
    ("completions", "n", ["0", "-1", "129", "2147483648", str(HUGE), "9" * 5_000, "1.5", "null1"]),
    ("completions", "best_of", ["0", "2", str(HUGE)]),
    ("completions", "max_tokens", ["-1", "32769", "2147483648", str(HUGE), "0.5", '"16"']),
    ("completions", "seed", [str(2**63), str(-(2**63) - 1), str(HUGE), "0.5", "1e300", '"1"', "false"]),
    ("completions", "logprobs", ["-1", "21", str(HUGE), "0.5", "true"]),
    ("completions", "stop", ['""', '["a", ""]', "[1]", "5", '"' + "a" * 257 + '"', "[" + ",".join(['"a"'] * 17) + "]"]),
    ("completions", "echo", ["1", '"yes"', "[]"]),
    ("completions", "stream", ["1", '"yes"']),
    ("completions", "stream_options", ["true", "[]", '{"include_usage": 1}']),
    ("completions", "unknown", ["null", '"drop"', "1"]),
    ("completions", "user", ["1"]),
    ("completions", "model", ["1", "[]"]),
    ("completions", "prompt", ["1", "true", "{}", "[]", "[-1]", "[1.5]", "[28]", "[[28]]", f"[{HUGE}]", '[1, "a"]']),
    ("completions", "presence_penalty", ["1e308", "0.1"]),
    ("completions", "frequency_penalty", ["-1"]),
    ("score", "input", ["1", "null", "[]", "[1]", "{}"]),
    ("score", "per", ["null", '"word"', "1"]),
    ("score", "prompt", ["null", "1", "[1]"]),
    ("score", "top_predictions", ["-1", "21", str(HUGE), "0.5", "true"]),
    ("score", "unknown", ["null", '"drop"']),
    ("next", "top", ["0", "-1", str(HUGE), "0.5", '"5"']),
    ("next", "prompt", ["null", "1", "[1]"]),
]


def send(api, path, field, value, **more):
    body = {name: json.dumps(one) for name, one in {**DEEP[path], **more}.items()} | {field: value}
    content = "{" + ", ".join(f'"{name}": {one}' for name, one in body.items()) + "}"
    return api.client.post(f"{api.url}/v1/{path}", content=content, headers={"Content-Type": "application/json"})


NO_JSON = ("NaN", "Infinity", "null1")


@pytest.mark.parametrize(("path", "field", "values"), REFUSED)
def test_absurd_values_are_refused_by_field_name(api, path, field, values):
    for value in values:
        answer = send(api, path, field, value)
        assert answer.status_code == 400, (value, answer.text)
        error = answer.json()["error"]
        if value in NO_JSON:
            assert error["code"] == "invalid_json"
        else:
            assert error["param"].startswith(field), (value, error)
            assert field in error["message"]
        assert len(error["message"]) < 400


@pytest.mark.parametrize("model", ["letters", "bytes", "names"])
def test_unpaired_surrogates_are_refused_in_every_field(api, model):
    for path, field in [
        ("completions", "prompt"),
        ("completions", "stop"),
        ("score", "input"),
        ("score", "prompt"),
        ("next", "prompt"),
    ]:
        for value in (r'"a\ud800b"', r'"\udc00"', r'"\ud800\ud800"', r'"a\ud83d"'):
            answer = send(api, path, field, value, model=model)
            assert answer.status_code == 400, (path, field, value, answer.text)
            assert answer.json()["error"]["param"] == field


def test_unusual_valid_values(api):
    whole = api.complete("a", seed=1, max_tokens=20)["choices"]
    greedy = api.complete("a", temperature=0, max_tokens=20)["choices"]
    for odd in ({"temperature": -0.0}, {"temperature": 1e-320}, {"top_p": 0}, {"top_p": 1e-300}, {"top_k": 1}):
        assert api.complete("a", seed=1, max_tokens=20, **odd)["choices"] == greedy, odd
    for same in (
        {"stop": []},
        {"stop": None},
        {"top_p": None},
        {"top_k": 2**31 - 1},
        {"n": 1.0},
        {"user": "\U0001f600"},
    ):
        assert api.complete("a", **{"seed": 1, "max_tokens": 20, **same})["choices"] == whole, same
    assert api.complete("a", seed=1.0, max_tokens=20.0, temperature=1)["choices"] == whole
    ids = api.complete([2.0, 3.0], seed=1, max_tokens=20)["choices"]
    assert api.complete([2, 3], seed=1, max_tokens=20)["choices"] == ids
    assert api.complete("a", max_tokens=0)["choices"][0] == {
        "text": "",
        "index": 0,
        "logprobs": None,
        "finish_reason": "length",
    }
    assert api.complete("a", seed=2**63 - 1, max_tokens=5)
    assert api.complete("a", seed=-(2**63), max_tokens=5)
