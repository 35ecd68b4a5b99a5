"""`python -m benchmarks.serving.abuse`: how much memory a server keeps after 10,000 requests no client should send.

`charloom serve` serves a small model at its default settings. Each kind of abuse is sent in turn: raw bytes, pipelined
and half-closed requests, oversized heads and bodies, upgrades, aborted streams, invalid JSON, absurd values, and
clients that leave before the answer. The first 4,000 requests fill the allocators and caches. After them, and after
every 2,000 more, the program reads the server's resident memory. It does so when the server is idle, and takes the
smallest of a few readings. `--requests N` sends more or fewer.
"""

import argparse
import contextlib
import json
import random
import re
import socket
import struct
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.serving.__main__ import CHARACTERS, memory, server
from charloom.model import TextModel
from charloom.models import Network
from charloom.settings import NetworkSettings, TextSettings
from charloom.text import Vocabulary

WARM_UP = 4_000
CHECKPOINTS = 5
SETTLE_SECONDS = 60
PAGE = b"GET /page.js HTTP/1.1\r\nHost: localhost\r\n\r\n"

Send = Callable[[socket.socket, random.Random], None]


def post(path: str, body: object, fields: bytes = b"", length: int | None = None) -> bytes:
    """Returns a request with a JSON body, or with the given bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode()
    return head + b"Content-Length: %d\r\n%s\r\n" % (len(data) if length is None else length, fields) + data


def chunked(body: object, end: bytes) -> bytes:
    """Returns a request with a body in one chunk, followed by `end`."""
    data = json.dumps(body).encode()
    head = b"POST /v1/next HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(data), data) + end


def drain(connection: socket.socket, most: int = 1 << 20) -> None:
    """Reads until the connection ends or is silent for a moment."""
    connection.settimeout(0.2)
    with contextlib.suppress(OSError):
        while most > 0 and (piece := connection.recv(65_536)):
            most -= len(piece)


def reset(connection: socket.socket) -> None:
    """Makes the connection end with a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def raw_bytes(connection: socket.socket, choose: random.Random) -> None:
    """Sends bytes that are not HTTP."""
    connection.sendall(choose.randbytes(choose.randrange(1, 2_000)))


def pipelined(connection: socket.socket, choose: random.Random) -> None:
    """Sends many requests at once and does not read the answers."""
    connection.sendall(PAGE * choose.choice((2, 40, 300)))
    if choose.random() < 0.5:
        reset(connection)


def half_closed(connection: socket.socket, choose: random.Random) -> None:
    """Closes its side after a complete request."""
    connection.sendall(post("/v1/completions", {"prompt": "a", "max_tokens": choose.choice((1, 300))}))
    connection.shutdown(socket.SHUT_WR)
    drain(connection)


def half_sent(connection: socket.socket, choose: random.Random) -> None:
    """Sends part of a request."""
    data = post("/v1/score", {"input": "a" * 500})
    connection.sendall(data[: choose.randrange(len(data))])
    if choose.random() < 0.5:
        connection.shutdown(socket.SHUT_WR)
        drain(connection)


def oversized(connection: socket.socket, choose: random.Random) -> None:
    """Sends a head or a body that is too large."""
    fields = choose.choice((b"X: " + b"y" * 100_000 + b"\r\n", b"X: y\r\n" * 20_000, b""))
    with contextlib.suppress(OSError):  # the server may end the connection first
        connection.sendall(post("/v1/score", b" " * choose.choice((10, 1_000_000)), fields))
    drain(connection)


def upgrades(connection: socket.socket, choose: random.Random) -> None:
    """Asks for another protocol."""
    protocol = choose.choice((b"h2c", b"websocket"))
    fields = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: %s\r\nHTTP2-Settings: AAM\r\n" % protocol
    connection.sendall(post("/v1/next", {"prompt": "a"}, fields))
    drain(connection, 1)


def cut_streams(connection: socket.socket, choose: random.Random) -> None:
    """Leaves in the middle of a stream."""
    body = {"prompt": "the ", "max_tokens": 3_000, "stream": True, "n": choose.choice((1, 3)), "seed": 1}
    connection.sendall(post("/v1/completions", body | choose.choice(({}, {"logprobs": 5}))))
    drain(connection, choose.choice((1, 10_000)))
    if choose.random() < 0.5:
        reset(connection)


def no_json(connection: socket.socket, choose: random.Random) -> None:
    """Sends a body that is not JSON."""
    body = choose.choice((b"", b"{", b"[" * 50_000, b'{"a":' * 20_000, b'{"prompt": "\\ud800"}', b"\xff\xfe", b"1e999"))
    connection.sendall(post(choose.choice(("/v1/completions", "/v1/score", "/v1/next")), body))
    drain(connection, 1)


def absurd_values(connection: socket.socket, choose: random.Random) -> None:
    """Sends a value that no field can have."""
    value = choose.choice((-1, 10**30, 1e300, "x" * 10_000, None, [], {}, [[1] * 100] * 100, "\x00", True))
    field = choose.choice(("prompt", "max_tokens", "n", "seed", "stop", "top_k", "temperature", "logprobs", "model"))
    connection.sendall(post("/v1/completions", {"prompt": "a", "max_tokens": 2, field: value}))
    drain(connection, 1)


def leaving(connection: socket.socket, choose: random.Random) -> None:
    """Leaves before the answer."""
    slow = {"input": ["a" * 60] * 50, "prompt": "a" * 500, "per": choose.choice(("char", "line", "text"))}
    connection.sendall(choose.choice((post("/v1/score", slow), post("/v1/completions", {"max_tokens": 5_000}))))
    if choose.random() < 0.5:
        reset(connection)


def trailing(connection: socket.socket, choose: random.Random) -> None:
    """Sends something else after a body in chunks."""
    ends = (b"0\r\na: b\r\n\r\n" + PAGE, b"0\r\n\r\ngarbage\r\n\r\n", b"zz\r\n", b"0\r\n" + b"a: b\r\n" * 20_000)
    with contextlib.suppress(OSError):
        connection.sendall(chunked({"prompt": "a"}, choose.choice(ends)))
    if choose.random() < 0.5:
        drain(connection)


def nowhere(connection: socket.socket, choose: random.Random) -> None:
    """Requests paths, methods and hosts that the server does not accept."""
    path = choose.choice((b"/" + b"%0a%1b" * 1_000, b"//", b"/v1/models/" + b"x" * 5_000, b"*", b"/%00"))
    method = choose.choice((b"GET", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE"))
    host = choose.choice((b"localhost", b"evil.example", b"", b"\x1b[31m"))
    connection.sendall(b"%s %s HTTP/1.1\r\nHost: %s\r\nOrigin: http://evil.example\r\n\r\n" % (method, path, host))
    drain(connection, 1)


KINDS: tuple[Send, ...] = (
    raw_bytes,
    pipelined,
    half_closed,
    half_sent,
    oversized,
    upgrades,
    cut_streams,
    no_json,
    absurd_values,
    leaving,
    trailing,
    nowhere,
)


def abuse(port: int, first: int, count: int, faults: Counter[str]) -> None:
    """Sends requests starting at number `first`, one per connection, and counts the failures."""
    for number in range(first, first + count):
        kind = KINDS[number % len(KINDS)]
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
                kind(connection, random.Random(number))
        except (ConnectionResetError, BrokenPipeError):
            continue  # the server has every reason to end it
        except OSError as error:
            faults[f"{kind.__name__}: {error!r}"] += 1


def metric(port: int, name: str) -> float:
    """Returns a value from the server's metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        found = re.search(rf"^{name} (\S+)$", answer.read().decode(), re.MULTILINE)
    assert found is not None  # the server has it
    return float(found[1])


def settled(port: int, process: int) -> int:
    """Returns the server's memory when it is idle."""
    names = ("charloom_active_texts", "charloom_queued_texts", "charloom_queued_scores")
    until = time.monotonic() + SETTLE_SECONDS
    while any(metric(port, name) for name in names) and time.monotonic() < until:
        time.sleep(0.2)
    readings = []
    for _ in range(8):  # the server returns memory some seconds after it was last busy
        time.sleep(1)
        metric(port, "charloom_active_texts")
        readings.append(memory(process))
    return min(readings)


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description="Measure how much memory a server keeps after abusive requests.")
    parser.add_argument("--requests", type=int, default=10_000, help="Number of requests after the warm-up.")
    count = parser.parse_args().requests
    settings = NetworkSettings(hidden=128, embedding=32)
    network = Network.init(settings, len(CHARACTERS), 0, np.random.default_rng(0))
    faults: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lstm.safetensors"
        TextModel(network, Vocabulary("chars", CHARACTERS), settings, TextSettings()).save(path)
        with server(path) as (port, process):
            print(f"memory at the start: {memory(process) / 1e6:.1f} MB", flush=True)
            began = time.monotonic()
            abuse(port, 0, WARM_UP, faults)
            before = settled(port, process)
            kept_before = metric(port, "charloom_prefix_bytes")
            print(f"after {WARM_UP:,} requests of {len(KINDS)} kinds to warm up: {before / 1e6:.1f} MB", flush=True)
            step = -(-count // CHECKPOINTS)
            sent = 0
            after = before
            while sent < count:
                abuse(port, WARM_UP + sent, min(step, count - sent), faults)
                sent = min(count, sent + step)
                after = settled(port, process)
                print(f"after {sent:,} more: {(after - before) / 1e6:+.2f} MB", flush=True)
            kept = metric(port, "charloom_prefix_bytes") - kept_before
            seconds = time.monotonic() - began
    print("\n| | |\n| --- | --- |")
    grown = (after - before) / 1e6
    print(f"| memory growth of the server over {count:,} abusive requests after warm-up, MB | {grown:.1f} |")
    print(f"| of which states of cached prompts, which have a separate bound, MB | {kept / 1e6:.1f} |")
    print(f"| connections that the server did not accept | {sum(faults.values())} {dict(faults) or ''} |")
    print(f"| seconds | {seconds:.0f} |")


if __name__ == "__main__":
    main()
