"""Routes, the OpenAPI document and the metrics agree with the server's responses."""

import os
import re
from collections import Counter

import httpx
import msgspec
import pytest

from charloom.cli.run import run
from charloom.errors import CharloomError, SettingError
from charloom.server import serve
from charloom.server.problems import ApiError
from charloom.server.requests import _parsed
from charloom.server.routes import OPERATIONS, document, operation_of
from charloom.server.schema import CompletionRequest, ModelList, NextRequest, encoded


def test_the_openapi_document_lists_exactly_the_routes():
    documented = {(path, method.upper()) for path, operations in document()["paths"].items() for method in operations}
    assert documented == {(one.path, one.method) for one in OPERATIONS if one.doc is not None}
    assert {one.path for one in OPERATIONS if one.doc is None} == {"/", "/page.js", "/page.css", "/icon.svg"}
    open_paths = {
        path for path, operations in document()["paths"].items() if operations.get("get", {}).get("security") == []
    }
    assert open_paths == {"/health", "/openapi.json"}


def counted(api):
    """Returns the number of responses by route and status, including those of other tests."""
    metrics = api.client.get(f"{api.url}/metrics").text
    found = re.findall(r'charloom_requests_total{route="(\S+)",status="(\d+)"} (\S+)', metrics)
    return Counter({(route, int(status)): int(float(count)) for route, status, count in found})


def test_requests_are_counted_by_route(api):
    before = counted(api)
    for path in ("/v1/models/letters", "/v1/models/none", "/v1/models", "/nothing", "/v1/models/a/b"):
        api.client.get(f"{api.url}{path}")
    asked = counted(api) - before
    name = "/v1/models/{name}"
    assert (asked[name, 200], asked[name, 404], asked["/v1/models", 200], asked["other", 404]) == (1, 1, 1, 2)
    scope = {"type": "http", "method": "DELETE", "path": "/v1/next", "root_path": ""}
    assert operation_of(scope).path == "/v1/next"


def test_integers_may_be_written_as_floats():
    asked = _parsed(
        bytearray(b'{"max_tokens": 5.0, "n": 2e0, "seed": -3.0, "stop": ["a"], "prompt": "5.0"}'), CompletionRequest
    )
    assert (asked.max_tokens, asked.n, asked.seed, asked.prompt) == (5, 2, -3, "5.0")
    assert isinstance(asked.max_tokens, int)
    for body in (
        b'{"top": 5.5}',
        b'{"top": "5"}',
        b'{"top": 0.0}',
        b'{"top": 1e400}',
        b'{"top": 1e300}',
        b'{"top": true}',
    ):
        with pytest.raises(msgspec.DecodeError):
            _parsed(bytearray(body), NextRequest)


def test_integers_written_as_floats_over_http(api):
    answer = api.post("/v1/completions", {"prompt": "a", "max_tokens": 5.0, "seed": 1.0, "logprobs": 2.0})
    assert answer.json()["choices"] == api.complete("a", max_tokens=5, seed=1, logprobs=2)["choices"]


def test_unpaired_surrogates_in_responses_are_escaped():
    assert msgspec.json.decode(encoded(ModelList(data=[]))) == {"object": "list", "data": []}
    assert encoded({"text": "a\ud800"}) == b'{"text": "a\\ud800"}'
    assert b"\\udcff" in ApiError(404, "no model \udcff").body


@pytest.mark.parametrize("host", ["a" * 64, "a" * 300, "\ud800", "a\x00b", "", "::g", "no.such.host.invalid"])
def test_an_invalid_host_is_refused_in_one_line(model_files, host):
    with pytest.raises(CharloomError, match="cannot listen on") as problem:
        serve([model_files["letters"]], host=host, port=0)
    assert str(problem.value).isprintable()
    assert len(str(problem.value)) < 600


@pytest.mark.parametrize("port", [-1, 65_536, 2**40])
def test_an_invalid_port_is_refused(model_files, port):
    with pytest.raises(SettingError, match="port"):
        serve([model_files["letters"]], port=port)


def test_serve_takes_the_same_paths_as_load(model_files, monkeypatch):
    letters = model_files["letters"]
    loaded = []

    def registry(paths):
        loaded.append(paths)
        raise CharloomError("far enough")

    monkeypatch.setattr("charloom.server.run.ModelRegistry", registry)
    for paths in (str(letters), letters, [str(letters)], (os.fsencode(letters),)):
        with pytest.raises(CharloomError, match="far enough"):
            serve(paths, port=0)
    assert loaded == [[letters]] * 4
    with pytest.raises(SettingError, match="model must be a path, got an empty string"):
        serve([""])


@pytest.mark.parametrize("token", ["", "é", "a\nb", "a\x1b", "a ", " "])
def test_invalid_tokens_are_refused(model_files, monkeypatch, capsys, token):
    with pytest.raises(SettingError, match="token"):
        serve([model_files["letters"]], port=0, token=token)
    monkeypatch.setenv("CHARLOOM_TOKEN", token)
    assert run(["serve", str(model_files["letters"])]) == 2
    assert "charloom: CHARLOOM_TOKEN " in capsys.readouterr().err


async def in_a_loop(path):
    serve([path], port=0)


def test_serve_is_refused_inside_a_running_event_loop(model_files):
    import asyncio

    with pytest.raises(CharloomError, match=r"threading\.Thread"):
        asyncio.run(in_a_loop(model_files["letters"]))


def test_trailing_slashes_are_not_redirected(api):
    answer = httpx.get(f"{api.url}/v1/models/", timeout=60)
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "not_found_error"
