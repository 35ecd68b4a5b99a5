"""`python -m benchmarks.serving.pauses`: how long demanding requests keep the event loop from others.

A server runs in this process, with a task in its event loop that wants a turn every millisecond. For each kind of
request, a client in another process sends three. Each kind has three figures. The first is the longest time between two
turns, which includes waits for other programs. The second is the most that the event loop's thread computed in such a
time. The third is the most that it computed in one callback. Then clients leave in the middle of requests, and the
program measures how long work for them continues.

The models are an LSTM of 512 units with 65 characters (`--hidden N` sets its size), and a GRU of 256 units for bytes.
"""

import asyncio
import contextlib
import gc
import json
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving.__main__ import CHARACTERS
from charloom.cli.serve import SWITCH_SECONDS
from charloom.model import TextModel
from charloom.models import Network
from charloom.server.model_registry import ModelRegistry
from charloom.server.service import Service
from charloom.settings import NetworkSettings, TextSettings
from charloom.text import Vocabulary

TIMES = 3
LONG = ("to be or not to be, that is the question\n" * 1600)[:65_000]
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "bytes, echo of 65,000": ("completions", {"model": "bytes", "prompt": LONG, "echo": True, "max_tokens": 1}),
    "bytes, echo with likelihoods": (
        "completions",
        {"model": "bytes", "prompt": LONG[:8_000], "echo": True, "max_tokens": 1, "logprobs": 20},
    ),
    "8,000 characters with 20 log-probabilities": ("completions", {"prompt": "a", "max_tokens": 8_000, "logprobs": 20}),
    "the same, streamed": ("completions", {"prompt": "a", "max_tokens": 8_000, "logprobs": 20, "stream": True}),
    "128 texts of 1,000 bytes": ("completions", {"model": "bytes", "prompt": "a", "n": 128, "max_tokens": 1_000}),
    "token ids, 65,000": ("completions", {"prompt": [1] * 65_000, "max_tokens": 1}),
    "score of 65,000 bytes, per char": (
        "score",
        {"model": "bytes", "input": LONG, "per": "char", "top_predictions": 10},
    ),
    "score of 60,000 lines": ("score", {"input": "a\n" * 30_000, "per": "line"}),
    "score of 1,024 texts": ("score", {"input": [LONG[:60]] * 1024, "prompt": "to be"}),
    "next of 65,000": ("next", {"prompt": LONG}),
}
LEAVING: dict[str, tuple[str, dict[str, Any]]] = {
    "completions": ("completions", {"prompt": "a", "max_tokens": 32_000, "n": 20}),
    "a prompt of 65,000": ("completions", {"prompt": LONG[::-1], "max_tokens": 10, "echo": True, "logprobs": 0}),
    "score": ("score", {"input": LONG, "per": "char"}),
    "score of lines": ("score", {"input": "a\n" * 30_000, "prompt": LONG[:30], "per": "line"}),
}


class Heartbeat:
    """A task that wants a turn of the event loop every millisecond.

    Attributes:
        longest: seconds between two turns.
        computed: seconds that the thread computed between two turns.
        at_a_stretch: seconds that the thread computed in one callback of the event loop.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.longest = self.computed = self.at_a_stretch = 0.0

    def time_callbacks(self) -> None:
        """Times every callback of this process's event loops from now on."""
        run_callback = asyncio.events.Handle._run

        def timed(handle: asyncio.events.Handle) -> None:
            used = time.thread_time()
            run_callback(handle)
            self.at_a_stretch = max(self.at_a_stretch, time.thread_time() - used)

        asyncio.events.Handle._run = timed  # type: ignore[method-assign]  # asyncio has no hook for this

    async def run(self) -> None:
        while True:
            begin, used = time.perf_counter(), time.thread_time()
            await asyncio.sleep(0.001)
            self.longest = max(self.longest, time.perf_counter() - begin - 0.001)
            self.computed = max(self.computed, time.thread_time() - used)


@contextlib.asynccontextmanager
async def api(models: list[Path]) -> AsyncIterator[tuple[int, Service]]:
    """Yields the port and the parts of a server in this event loop."""
    import uvicorn

    from charloom.server.app import application
    from charloom.server.engine import Engine
    from charloom.server.limits import Limits
    from charloom.server.metrics import Metrics

    limits, metrics = Limits(), Metrics()
    service = Service(ModelRegistry(models), Engine(limits, metrics.sending_seconds.observe), limits, metrics)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(application(service), log_config=None, access_log=False))
        task = asyncio.create_task(server.serve([listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        sys.setswitchinterval(SWITCH_SECONDS)  # like `charloom serve`
        gc.freeze()
        yield listener.getsockname()[1], service
        server.should_exit = True
        await task


def request(port: int, path: str, body: dict[str, Any]) -> bytes:
    """Returns the bytes of a request."""
    data = json.dumps(body).encode()
    head = (
        f"POST /v1/{path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + data


def ask(port: int, kind: str) -> None:
    """Sends requests of a kind, one after another, and reads the answers."""
    for _ in range(TIMES):
        with socket.create_connection(("127.0.0.1", port), timeout=300) as connection:
            connection.sendall(request(port, *KINDS[kind]))
            status = connection.recv(1 << 20)[9:12]
            while connection.recv(1 << 20):
                pass
            if status != b"200":
                sys.exit(f"{kind}: status {status.decode()}")


async def seconds_after_leaving(port: int, service: Service, path: str, body: dict[str, Any]) -> float:
    """Returns how long work continues after a client leaves in the middle of its request."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(port, path, body))
    while not (service.engine.active or service.scoring.count):
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.2)
    if not (service.engine.active or service.scoring.count):
        return float("nan")  # it had ended before
    left = time.perf_counter()
    writer.transport.abort()
    while service.engine.active or service.scoring.count:
        await asyncio.sleep(0.0005)
    return time.perf_counter() - left


async def measure(models: list[Path]) -> None:
    """Prints the figures."""
    heartbeat = Heartbeat()
    async with api(models) as (port, service):
        beating = asyncio.create_task(heartbeat.run())
        heartbeat.time_callbacks()
        print("| request | longest pause, ms | computing in a pause, ms | longest callback, ms |")
        print("| --- | --- | --- | --- |", flush=True)
        for kind in KINDS:
            command = [sys.executable, "-m", "benchmarks.serving.pauses", "--ask", str(port), kind]
            client = await asyncio.create_subprocess_exec(*command)
            await asyncio.sleep(0.1)  # starting the client's process also pauses the loop
            heartbeat.reset()
            if await client.wait():
                sys.exit(1)
            figures = heartbeat.longest, heartbeat.computed, heartbeat.at_a_stretch
            print(f"| {kind} | {' | '.join(f'{1000 * seconds:.1f}' for seconds in figures)} |", flush=True)
        print("\n| the client leaves during | work continues for, ms |\n| --- | --- |", flush=True)
        for name, (path, body) in LEAVING.items():
            seconds = max([await seconds_after_leaving(port, service, path, body) for _ in range(TIMES)])
            print(f"| {name} | {1000 * seconds:.0f} |", flush=True)
        beating.cancel()


def main() -> None:
    """Measures, or sends requests for the process that measures."""
    if sys.argv[1:2] == ["--ask"]:
        ask(int(sys.argv[2]), sys.argv[3])
        return
    hidden = int(sys.argv[2]) if sys.argv[1:2] == ["--hidden"] else 512
    of_text, of_bytes = NetworkSettings(hidden=hidden, embedding=64), NetworkSettings(cell="gru", hidden=256)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / "lstm.safetensors", Path(folder) / "bytes.safetensors"]
        network = Network.init(of_text, len(CHARACTERS), 0, np.random.default_rng(0))
        TextModel(network, Vocabulary("chars", CHARACTERS), of_text, TextSettings()).save(paths[0])
        network = Network.init(of_bytes, 256, 10, np.random.default_rng(0))
        TextModel(network, Vocabulary.of_bytes(), of_bytes, TextSettings(units="bytes")).save(paths[1])
        asyncio.run(measure(paths))


if __name__ == "__main__":
    main()
