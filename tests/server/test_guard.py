"""Hosts, origins, tokens, limits, and refusals of everything else."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.server.conftest import eventually, serving

JSON = {"Content-Type": "application/json"}


def raw(server, data, seconds=10.0):
    """Returns the whole response to raw bytes, until the connection ends."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=seconds) as connection:
        answer = b""
        try:
            connection.sendall(data)
            while piece := connection.recv(65536):
                answer += piece
        except TimeoutError:
            pass
        except (ConnectionResetError, BrokenPipeError):  # because input after the response was unread
            pass
        return answer


def head(path, length):
    kind = "Content-Type: application/json"
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{kind}\r\nContent-Length: {length}\r\n\r\n".encode()


def assert_refused(answer, status, code):
    """Checks that a raw response is a complete refusal."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer[:300]
    assert f"content-length: {len(body)}" in head.decode().lower()
    assert json.loads(body)["error"]["code"] == code


def is_refused(answer, status, code=None):
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    if code is not None:
        assert error["code"] == code
    return True


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::1", "a" * 300])
def test_unknown_hosts_are_refused(api, host):
    answer = api.client.get(f"{api.url}/v1/models", headers={"Host": host})
    assert is_refused(answer, 403, "host")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "127.0.0.1:1", "[::1]:8000", "192.168.1.7"])
def test_addresses_and_localhost_are_accepted(api, host):
    assert api.client.get(f"{api.url}/v1/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://localhost", "junk", "http://["]
)
def test_pages_of_other_sites_are_refused(api, origin):
    body = {"prompt": "a"}
    answer = api.post("/v1/completions", body, headers={"Origin": origin})
    assert is_refused(answer, 403, "origin")
    assert api.post("/v1/completions", body, headers={"Origin": api.url}).status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None])
def test_content_types_of_html_forms_are_refused(api, kind):
    headers = {} if kind is None else {"Content-Type": kind}
    answer = api.client.post(f"{api.url}/v1/completions", content=b'{"prompt": "a"}', headers=headers)
    assert is_refused(answer, 415, "content_type")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"prompt": NaN}',
        b'{"temperature": Infinity}',
        b'{"prompt": "\xff\xfe"}',
        b'{"prompt": "\\ud800"}',
        b"\x00\x01\x02",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"max_tokens": 1e400}',
        b'{"seed": 123456789012345678901234567890}',
    ],
)
def test_invalid_bodies_are_refused(api, body):
    for path in ("/v1/completions", "/v1/score", "/v1/next"):
        answer = api.client.post(f"{api.url}{path}", content=body, headers=JSON)
        assert is_refused(answer, 400)


def test_unknown_paths_and_methods_are_refused(api):
    assert is_refused(api.client.get(f"{api.url}/v2/nothing"), 404)
    assert is_refused(api.client.get(f"{api.url}/v1/completions"), 405)
    assert is_refused(api.client.delete(f"{api.url}/health"), 405)
    assert is_refused(api.client.get(f"{api.url}/v1/models/none"), 404, "model_not_found")
    assert is_refused(api.client.get(f"{api.url}/../../etc/passwd"), 404)


def test_a_body_that_is_too_large_is_refused_before_it_has_arrived(api):
    # The rest of the body is never sent, so the server must answer before it arrives.
    answer = raw(api, head("/v1/score", 10**9) + b" " * 2_000_000)
    assert b" 413 " in answer.split(b"\r\n")[0]
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "body_too_large"


def test_a_head_that_is_too_large_is_refused(api):
    endless = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Junk: " + b"a" * 2_000_000
    assert_refused(raw(api, endless), 431, "head_too_large")
    many = b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"X-%d: 1\r\n" % at for at in range(200_000))
    assert_refused(raw(api, many), 431, "head_too_large")
    trailers = (
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"a:b\r\n" * 10**6
    )
    before = api.memory()
    answer, _, refusal = raw(api, trailers).partition(b'"ready":true}')
    assert b" 200 " in answer.split(b"\r\n")[0]
    assert_refused(refusal, 400, "invalid_http")
    assert api.memory() - before < 20e6
    assert api.client.get(f"{api.url}/health").status_code == 200


def test_input_that_is_not_http_is_refused_in_json(api):
    answer = raw(api, b"\x16\x03\x01\x02\x00junk\r\n\r\n")
    assert_refused(answer, 400, "invalid_http")


def test_slow_and_incomplete_requests_time_out(model_files, tmp_path):
    with serving(tmp_path, model_files["letters"], limits={"body_timeout": 1}) as server:
        assert_refused(raw(server, b"POST /v1/next HTTP/1.1\r\nHost: loc", 60), 408, "timeout")
        assert raw(server, b"", 60) == b""
        assert b" 408 " in raw(server, head("/v1/next", 100) + b"{").split(b"\r\n")[0]
        # Input after a response must become a request in time, and the rest of a refused request must arrive in time.
        refused = head("/v1/next", 100).replace(b"application/json", b"text/plain")
        for data, more in [(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\r\n"), (refused, b"{")]:
            with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
                connection.sendall(data)
                assert connection.recv(65536)
                connection.sendall(more)
                while connection.recv(65536):
                    pass
        assert server.complete("a", max_tokens=5)


def test_a_token_is_required(model_files, tmp_path):
    with serving(tmp_path, model_files["letters"], CHARLOOM_TOKEN="the secret") as server:
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Basic the secret"},
            {"Authorization": "é"},
        ):
            headers = {name: value.encode("latin-1") for name, value in headers.items()}
            answer = server.client.get(f"{server.url}/v1/models", headers=headers)
            assert is_refused(answer, 401, "invalid_api_key")
            assert is_refused(server.client.get(f"{server.url}/metrics", headers=headers), 401)
        right = {"Authorization": "Bearer the secret"}
        assert server.client.get(f"{server.url}/v1/models", headers=right).status_code == 200
        assert server.post("/v1/next", {"prompt": "a"}, headers=right).status_code == 200
        for path in ("/", "/health", "/page.js", "/openapi.json"):  # the page links to the last without a token
            assert server.client.get(f"{server.url}{path}").status_code == 200
    assert "the secret" not in server.log


def test_requests_beyond_the_limits_are_refused(model_files, tmp_path):
    options = "--max-streams", 2, "--max-queue", 1, "--max-tokens", 20_000, "--max-prompt", 50
    with serving(tmp_path, model_files["letters"], *options) as server:
        assert is_refused(server.post("/v1/completions", {"prompt": "a" * 51}), 400, "prompt_too_long")
        assert is_refused(server.post("/v1/completions", {"max_tokens": 20_001}), 400, "too_many_tokens")
        assert is_refused(server.post("/v1/completions", {"n": 4}), 400, "too_many_choices")  # more than ever possible
        # Two texts are generated and one waits; their readers do not read.
        body = {"prompt": "a", "max_tokens": 20_000, "stream": True, "logprobs": 20}
        streams = [server.client.stream("POST", f"{server.url}/v1/completions", json=body) for _ in range(3)]
        opened = [stream.__enter__() for stream in streams[:2]]
        assert all(one.status_code == 200 for one in opened)
        with httpx.Client(timeout=0.3) as hasty, pytest.raises(httpx.ReadTimeout):
            hasty.post(f"{server.url}/v1/completions", json=body)  # waits, and then disconnects
        assert eventually(lambda: server.metric("charloom_queued_texts") == 0)
        assert server.metric("charloom_active_texts") == 2
        answer = server.post("/v1/completions", {"prompt": "a", "n": 2})
        assert is_refused(answer, 429, "queue_full")
        assert answer.headers["retry-after"] == "1"
        for stream in streams[:2]:
            stream.__exit__(None, None, None)
        assert eventually(lambda: server.metric("charloom_active_texts") == 0)
        assert server.complete("a", n=3)


def test_requests_time_out(model_files, tmp_path):
    with serving(tmp_path, model_files["letters"], "--timeout", 0.5, "--max-tokens", 10**7) as server:
        answer = server.post("/v1/completions", {"prompt": "a", "max_tokens": 10**7})
        assert is_refused(answer, 408, "timeout")
        stream = server.post("/v1/completions", {"prompt": "a", "max_tokens": 10**7, "stream": True})
        *_, last, end = stream.text.split("\n\n")
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "timeout"
        assert end == ""
        assert eventually(lambda: server.metric("charloom_active_texts") == 0)


def test_allowed_sites_are_accepted(model_files, tmp_path):
    options = "--cors", "https://app.example", "--allow-host", "charloom.example"
    with serving(tmp_path, model_files["letters"], *options) as server:
        headers = {"Origin": "https://app.example", "Host": "charloom.example"}
        preflight = {
            **headers,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type",
        }
        answer = server.client.options(f"{server.url}/v1/completions", headers=preflight)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        answer = server.post("/v1/next", {"prompt": "a"}, headers=headers)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        assert is_refused(server.post("/v1/next", {}, headers={"Origin": "https://other.example"}), 403, "origin")


def test_prompts_are_logged_only_on_request(model_files, tmp_path):
    with serving(tmp_path, model_files["letters"]) as server:
        server.complete("a secret prompt", max_tokens=3)
        server.post("/v1/score", {"input": "a secret text"})
        server.post("/v1/next", {"prompt": "a secret letter É"})
        server.client.get(f"{server.url}/%0a2026-01-01 00:00:00 a forged line%1b[31m")
    assert "POST /v1/completions 200" in server.log
    assert "\\n2026-01-01 00:00:00 a forged line\\x1b[31m 404" in server.log
    assert "secret" not in server.log
    with serving(tmp_path, model_files["letters"], "--log-prompts") as server:
        server.complete("a secret prompt", max_tokens=3)
    assert "prompt 'a secret prompt'" in server.log


def test_health_metrics_and_openapi_document(api):
    assert api.client.get(f"{api.url}/health").json() == {"live": True, "ready": True}
    api.complete("a")
    metrics = api.client.get(f"{api.url}/metrics").text
    assert 'charloom_requests_total{route="/v1/completions",status="200"}' in metrics
    assert "charloom_first_character_seconds_count" in metrics
    document = api.client.get(f"{api.url}/openapi.json").json()
    assert document["openapi"].startswith("3.")
    assert set(document["paths"]) >= {"/v1/completions", "/v1/score", "/v1/next", "/v1/models", "/health", "/metrics"}
    page = api.client.get(f"{api.url}/")
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_a_fuzzer_finds_no_server_error(api):
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{api.url}/openapi.json"]
    options = [
        "--phases",
        "fuzzing",
        "--checks",
        "not_a_server_error,response_schema_conformance,content_type_conformance",
    ]
    counts = ["--max-examples", "40", "--mode", "all", "--generation-deterministic", "--no-color"]
    done = subprocess.run(
        [*command, *options, *counts], capture_output=True, text=True, timeout=300, cwd=api.log_file.parent
    )
    assert done.returncode == 0, done.stdout


def test_idle_connections_are_closed_for_new_ones(model_files, tmp_path):
    with serving(tmp_path, model_files["letters"], limits={"max_streams": 1, "max_queue": 1}) as server:
        silent = [socket.create_connection(("127.0.0.1", server.port), timeout=60) for _ in range(300)]
        assert server.client.get(f"{server.url}/health").status_code == 200
        assert server.complete("a", max_tokens=3)
        assert silent[0].recv(1) == b""  # the oldest was closed for new ones
        for connection in silent:
            connection.close()


def test_health_is_answered_when_all_connections_are_in_use(model_files, tmp_path):
    with serving(tmp_path, model_files["letters"], limits={"max_streams": 1, "max_queue": 1}) as server:
        busy = [socket.create_connection(("127.0.0.1", server.port), timeout=60) for _ in range(66)]
        for connection in busy:  # each in the middle of its request's body
            connection.sendall(head("/v1/next", 100) + b"{")
        answer = b""
        while b" 429 " not in answer.split(b"\r\n")[0]:  # some of the heads may not have arrived yet
            answer = raw(server, b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert b"retry-after: 1" in answer
        assert_refused(answer, 429, "queue_full")
        assert httpx.get(f"{server.url}/health", timeout=60).status_code == 200
        for connection in busy:
            connection.close()
        assert eventually(lambda: httpx.get(f"{server.url}/v1/models", timeout=60).status_code == 200)


def test_the_limit_of_open_files_is_raised_or_reported(model_files, tmp_path):
    script = "ulimit -S -n 100; ulimit -H -n 400; exec " + " ".join(
        [sys.executable, "-m", "charloom", "serve", str(model_files["letters"]), "--port", "0"]
    )
    process = subprocess.Popen(["bash", "-c", script], stderr=subprocess.PIPE, text=True)
    try:
        lines = [process.stderr.readline() for _ in range(3)]
        assert "may open 400 files" in lines[0]
        assert "ulimit -n 2192" in lines[0]
        assert "ready" in lines[2]
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        assert "400" in next(line for line in limits.splitlines() if line.startswith("Max open files")).split()[3]
    finally:
        process.terminate()
        process.communicate()


def test_scores_are_limited_and_end_with_their_client(model_files, tmp_path):
    with serving(tmp_path, model_files["letters"]) as server:
        long = {"input": "\n" * 60_000, "prompt": "a" * 60_000, "per": "line"}
        assert is_refused(server.post("/v1/score", long), 400, "too_much")
        wide = {"input": "a" * 60_000, "per": "char", "top_predictions": 20}
        assert is_refused(server.post("/v1/score", wide), 400, "answer_too_long")
        slow = {"input": ["a" * 60] * 1000, "prompt": "a" * 900, "per": "char"}
        for _ in range(3):
            with httpx.Client(timeout=0.05) as hasty, pytest.raises(httpx.ReadTimeout):
                hasty.post(f"{server.url}/v1/score", json=slow)
        assert server.post("/v1/score", {"input": "a"}).status_code == 200
        assert eventually(lambda: server.metric("charloom_queued_scores") == 0)
