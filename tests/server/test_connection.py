"""Connections with too much input, too little, pipelined requests, garbage, and disconnects."""

import contextlib
import json
import re
import socket
import struct

import pytest

from tests.server.conftest import eventually, serving

HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
PAGE = b"GET /page.js HTTP/1.1\r\nHost: localhost\r\n\r\n"


def post(path, body, *, fields=b"", version=b"1.1"):
    data = json.dumps(body).encode()
    head = b"POST %s HTTP/%s\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n"
    return head % (path.encode(), version, len(data), fields) + data


def chunked(body, trailer=b"", more=b""):
    data = json.dumps(body).encode()
    head = b"POST /v1/next HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n%s\r\n" % (len(data), data, trailer) + more


@contextlib.contextmanager
def connected(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        yield connection


def answers(connection, count):
    """Returns the statuses and bodies of `count` responses on one connection."""
    with connection.makefile("rb") as file:
        return [answer(file) for _ in range(count)]


def answer(file):
    status, fields = int(file.readline().split()[1]), {}
    while line := file.readline().strip():
        name, _, value = line.partition(b":")
        fields[name.lower()] = value.strip()
    if fields.get(b"transfer-encoding") != b"chunked":
        return status, file.read(int(fields[b"content-length"]))
    body = b""
    while length := int(file.readline(), 16):
        body += file.read(length)
        file.readline()
    file.readline()
    return status, body


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def lines_of(server):
    return [line for line in server.log.splitlines() if not re.search("loading|ready|compiling", line)]


@pytest.mark.parametrize("protocol", ["h2c", "websocket", "h2c, foo/2"])
@pytest.mark.parametrize("cut", [0, 1, 50, 150, 200])
def test_an_upgrade_to_another_protocol_is_ignored(api, protocol, cut):
    fields = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: %s\r\nHTTP2-Settings: AAMAAABk\r\n" % protocol.encode()
    data = post("/v1/next", {"prompt": "a", "top": 1}, fields=fields) + HEALTH
    with connected(api) as connection:
        connection.sendall(data[:cut])
        connection.sendall(data[cut:])
        (status, body), (health, _) = answers(connection, 2)
    assert (status, health) == (200, 200)
    assert len(json.loads(body)["data"]) == 1


def test_a_half_closed_connection_gets_its_responses(api):
    body = {"prompt": "a", "max_tokens": 20, "seed": 1}
    expected = api.complete(**body)["choices"]
    for version in (b"1.0", b"1.1"):
        with connected(api) as connection:
            connection.sendall(post("/v1/completions", body, version=version))
            connection.shutdown(socket.SHUT_WR)
            ((status, found),) = answers(connection, 1)
            assert status == 200
            assert json.loads(found)["choices"] == expected
            assert connection.recv(1) == b""
    # The same for pipelined requests and for a stream.
    with connected(api) as connection:
        connection.sendall(HEALTH * 3 + post("/v1/completions", {**body, "stream": True}))
        connection.shutdown(socket.SHUT_WR)
        found = answers(connection, 4)
        assert [status for status, _ in found] == [200] * 4
        assert found[-1][1].endswith(b"data: [DONE]\n\n")
        assert connection.recv(1) == b""


def test_a_half_closed_connection_gets_a_long_response(api):
    # It takes longer than the server waits before it probes whether the client is still there.
    slow = {"input": ["a" * 60] * 900, "prompt": "a" * 900, "per": "text"}
    with connected(api) as connection:
        connection.sendall(post("/v1/score", slow))
        connection.shutdown(socket.SHUT_WR)
        ((status, found),) = answers(connection, 1)
    assert status == 200
    assert len(json.loads(found)["data"]) == 900


def test_a_request_that_ends_too_early_is_refused(api):
    for data in (post("/v1/next", {"prompt": "a"})[:-1], HEALTH[:-1], b"G"):
        with connected(api) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            ((status, body),) = answers(connection, 1)
            assert status == 400
            assert json.loads(body)["error"]["code"] == "invalid_http"
            assert connection.recv(1) == b""


def test_garbage_after_a_request_is_refused_after_its_response(api):
    for data in (
        chunked({"prompt": "a"}, more=b"garbage\r\n\r\n"),
        chunked({"prompt": "a"}, trailer=b"X-Sum: 1\r\n", more=b"\x00\x00"),
        post("/v1/completions", {"prompt": "a", "max_tokens": 500, "stream": True}) + b"!!\r\n",
    ):
        with connected(api) as connection:
            connection.sendall(data)
            (status, body), (refusal, problem) = answers(connection, 2)
            assert status == 200
            assert body.startswith((b"{", b"data: {"))
            assert refusal == 400
            assert json.loads(problem)["error"]["code"] == "invalid_http"


def test_an_invalid_chunked_body_is_refused_at_once(api):
    data = chunked({"prompt": "a"}).replace(b"\r\n0\r\n", b"\r\nzz\r\n")
    with connected(api) as connection:
        connection.sendall(data)
        ((status, problem),) = answers(connection, 1)
    assert (status, json.loads(problem)["error"]["code"]) == (400, "invalid_http")


def test_trailers_are_ignored(api):
    with connected(api) as connection:
        connection.sendall(chunked({"prompt": "a"}, trailer=b"X-Sum: 1\r\nX-More: 2\r\n", more=HEALTH))
        assert [status for status, _ in answers(connection, 2)] == [200, 200]


def test_pipelined_requests_are_answered_in_order_with_bounded_memory(api):
    before = api.memory()
    requests = [post("/v1/next", {"prompt": "a", "top": 1 + number % 5}) for number in range(200)]
    with connected(api) as connection:
        connection.sendall(b"".join(requests))
        found = answers(connection, 200)
    assert [len(json.loads(body)["data"]) for _, body in found] == [1 + number % 5 for number in range(200)]
    # Behind a slow response, they are left unread.
    with connected(api) as connection:
        slow = {"prompt": "a", "max_tokens": 30_000, "stream": True, "logprobs": 20}
        connection.sendall(post("/v1/completions", slow))
        connection.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            connection.sendall(HEALTH * 500_000)
        assert api.memory() - before < 20e6


def test_clients_that_disconnect_leave_short_log_lines(model_files, tmp_path):
    kinds = [
        PAGE * 40,
        chunked({"prompt": "a"}, trailer=b"a: b\r\n", more=PAGE),
        chunked({"prompt": "a"}, more=b"\x00" * 100),
        post("/v1/next", {"prompt": "a"}) + b"more",
        post("/v1/completions", {"prompt": "a", "max_tokens": 5_000, "stream": True}),
        post("/v1/completions", {"prompt": "a", "max_tokens": 5_000}) + PAGE,
        post("/v1/score", {"input": ["a" * 60] * 200, "prompt": "a" * 900}),
        post("/v1/next", {"prompt": "a" * 60_000})[:-1],
        HEALTH[:20],
        b"GET /" + b"%0a%1b[31m" * 5_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ]
    with serving(tmp_path, model_files["letters"]) as server:
        for number in range(20):
            for data in kinds:
                with connected(server) as connection:
                    connection.sendall(data)
                    if number % 2:
                        reset(connection)
        assert eventually(lambda: server.metric("charloom_active_texts") == 0)
        assert eventually(lambda: server.metric("charloom_queued_scores") == 0)
        assert server.client.get(f"{server.url}/health").status_code == 200
    lines = lines_of(server)
    assert len(lines) > 200
    line_of_request = r"[-0-9]{10} [:0-9]{8} ((127\.0\.0\.1|-) \S+ \S+ \d+|stopping)"
    assert [line for line in lines if not re.match(line_of_request, line)] == []
    assert max(map(len, lines)) < 1000


def test_a_stream_that_is_cut_short_is_logged_as_such(model_files, tmp_path):
    long = {"prompt": "a", "max_tokens": 10**7, "stream": True}
    with serving(tmp_path, model_files["letters"], limits={"max_tokens": 10**7, "timeout": 1}) as server:
        with connected(server) as connection:
            connection.sendall(post("/v1/completions", long))
            assert connection.recv(100)
        assert eventually(lambda: "/v1/completions 499 cut short" in server.log)
        with connected(server) as connection:
            connection.sendall(post("/v1/completions", long))
            ((status, body),) = answers(connection, 1)
        assert status == 200
        assert json.loads(body.split(b"\n\n")[-2].removeprefix(b"data: "))["error"]["code"] == "timeout"
        assert eventually(lambda: "/v1/completions 408 cut short: timeout" in server.log)
        server.complete("a")
        metrics = server.client.get(f"{server.url}/metrics").text
        counted = dict(re.findall(r'charloom_requests_total{route="/v1/completions",status="(\d+)"} (\S+)', metrics))
        assert counted == {"499": "1.0", "408": "1.0", "200": "1.0"}
