"""Hostile requests: absurd fields, raw bytes, and connections that end in the middle."""

import json
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.runner import Tally
from tests.fuzz.values import json_bytes, mutated_bytes, mutated_json

_PATHS = {
    "/v1/completions": [
        {"model": "chars", "prompt": "the ", "max_tokens": 8, "temperature": 0.5, "n": 2, "seed": 1, "stop": ["x"]},
        {
            "model": "bytes",
            "prompt": ["a", "b"],
            "max_tokens": 4,
            "echo": True,
            "logprobs": 2,
            "top_k": 3,
            "top_p": 0.9,
        },
        {"model": "records", "prompt": "", "max_tokens": 8, "stream": True, "stream_options": {"include_usage": True}},
    ],
    "/v1/score": [
        {"model": "chars", "input": ["the quick", "brown\rfox\n"], "per": "line", "prompt": "a", "unknown": "skip"},
        {"model": "bytes", "input": "the quick brown", "per": "char"},
    ],
    "/v1/next": [{"model": "records", "prompt": "the", "top": 3, "unknown": "replace"}],
}
_WHOLE_ANSWER = re.compile(rb"HTTP/1\.[01] (\d{3}) ")
_EVERY = 100
"""Number of requests between two health checks; at least this many are sent."""


def fuzz_requests(samples: Path, scratch: Path, rng: random.Random, until: float, max_cases: int) -> Tally:
    """Sends requests that a server should refuse, and checks its responses, its log and its exit."""
    tally = Tally("HTTP requests")
    log = scratch / "server.log"
    models = [str(samples / f"{name}.safetensors") for name in ("chars", "bytes", "records")]
    with log.open("wb") as file:
        server = subprocess.Popen(
            [sys.executable, "-m", "charloom", "serve", *models, "--port", "0"], stdout=file, stderr=file
        )
    try:
        port = _port(server, log)
        while tally.has_next(until, max_cases, min_cases=_EVERY):
            data = _absurd_request(rng, port)
            _send(tally, port, data, rng)
            if tally.cases % _EVERY == 0 and not _is_healthy(port):
                tally.fault(f"/health did not answer 200 after {data[:500]!r}")
                break
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            status = server.wait(60)
            if status not in (0, 143):
                tally.fault(f"the server exited with {status}")
        except subprocess.TimeoutExpired:
            tally.fault("SIGTERM did not end the server in 60 s")
            server.kill()
            server.wait()
    text = log.read_bytes().decode("utf-8", "replace")
    for line in text.split("\n"):
        if "Traceback" in line or len(line) > 2_000 or not line.isprintable():
            tally.fault(f"the log has {line[:500]!r}")
    return tally


def _port(server: "subprocess.Popen[bytes]", log: Path) -> int:
    for _ in range(1_200):
        if found := re.search(rb"http://\S+:(\d+): ready", log.read_bytes()):
            return int(found[1])
        if server.poll() is not None:
            break
        time.sleep(0.1)
    raise SystemExit(f"the server did not start: {log.read_text()}")


def _absurd_request(rng: random.Random, port: int) -> bytes:
    path = rng.choice(list(_PATHS))
    body = rng.choice(_PATHS[path])
    content = json_bytes(mutated_json(body, rng))
    way = rng.random()
    if way > 0.95:
        content = mutated_bytes(json.dumps(body).encode(), rng)
    if way < 0.6:
        return _request("POST", path, content, port)
    if way < 0.7:
        method = rng.choice(("GET", "PUT", "OPTIONS", "HEAD", "DELETE", "TRACE", "CONNECT", "x", "PRI"))
        target = rng.choice((path, "/", "/v1/models/\x1b[31m", "/v1/models/%00", "//", "*", "/%", "/" + "a" * 9_000))
        return _request(method, target, rng.choice((b"", content)), port)
    if way < 0.8:
        extra = rng.choice(
            (
                "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n",
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n",
                "Expect: 100-continue\r\n",
                "Transfer-Encoding: chunked\r\n",
                "Content-Length: 5\r\n",
                "Host: \x1b[31m\r\n",
                "Authorization: Bearer \xff\r\n",
                "Content-Encoding: gzip\r\n",
                "X: " + "y" * rng.choice((100, 10_000, 100_000)) + "\r\n",
            )
        )
        return _request("POST", path, content, port, extra)
    whole = _request("POST", path, json.dumps(body).encode(), port)
    if way < 0.9:
        return mutated_bytes(whole, rng)
    chunked = _request("POST", path, b"", port, "Transfer-Encoding: chunked\r\n").replace(b"Content-Length: 0\r\n", b"")
    end = rng.choice((b"0\r\n\r\n", b"0\r\na: b\r\n\r\n", b"zz\r\n", b"0\r\n\r\ngarbage\r\n\r\n", b"-1\r\n", b""))
    return chunked + b"%x\r\n%s\r\n" % (len(content), content) + end + rng.choice((b"", whole * 3))


def _request(method: str, path: str, content: bytes, port: int, extra: str = "") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n{extra}\r\n".encode("latin-1") + content


def _send(tally: Tally, port: int, data: bytes, rng: random.Random) -> None:
    """Sends `data` on a new connection, and counts the response."""
    disconnects = rng.random() < 0.15
    answer = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(data)
            if disconnects:
                tally.stopped += 1
                return
            if rng.random() < 0.9:
                connection.shutdown(socket.SHUT_WR)
            else:
                connection.settimeout(0.2)
            while piece := connection.recv(65_536):
                answer += piece
    except TimeoutError:
        pass
    except (ConnectionResetError, BrokenPipeError):
        pass
    except OSError as error:
        tally.fault(f"cannot connect: {error}")
        return
    statuses = [int(found) for found in _WHOLE_ANSWER.findall(answer)]
    if any(status >= 500 for status in statuses):
        tally.fault(f"{data[:1500]!r}\n    answered {answer[:600]!r}")
    elif any(status < 300 for status in statuses):
        tally.results += 1
    elif statuses:
        tally.refused += 1
    else:  # the input was not even the beginning of a request
        tally.stopped += 1


def _is_healthy(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
            return b" 200 " in connection.recv(65_536).split(b"\r\n")[0]
    except OSError:
        return False
