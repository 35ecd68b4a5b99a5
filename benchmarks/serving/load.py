"""`python -m benchmarks.serving.load PORT STREAMS CHARACTERS`: sends requests for many streams at the same time.

Each stream is a request with a separate prompt, on a separate connection. This process shares the processors with the
server, so it keeps the answers as they arrive and parses them at the end. It prints one JSON object: all characters,
seconds from the first request to the last answer, seconds to each stream's first character, the number of events, and
problems.
"""

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from random import Random

WORDS = ("the", "king", "shall", "not", "come", "to", "London", "for", "all", "his", "lords", "and", "their", "horses")
LIMIT_SECONDS = 300
CONNECTING = 200
"""Connections that are made at the same time. A system's backlog is short."""


@dataclass
class Answer:
    """The answer to a request."""

    sent: float = 0.0
    arrivals: list[float] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    problem: str = ""

    def characters(self) -> int:
        """Returns the number of characters, and notes what is wrong with the answer."""
        head, _, rest = bytes(self.body).partition(b"\r\n\r\n")
        if b" 200 " not in head[:20]:
            self.problem = self.problem or head[:60].decode("latin-1") or "no answer"
            return 0
        events = [line[6:] for line in rest.split(b"\n") if line.startswith(b"data: ")]
        if not events or events[-1].strip() != b"[DONE]":
            self.problem = self.problem or "broken off"
            return 0
        return sum(len(json.loads(event)["choices"][0]["text"]) for event in events[:-1])


class Client(asyncio.Protocol):
    """Keeps what arrives on one connection."""

    def __init__(self, answer: Answer, done: asyncio.Future[None]) -> None:
        self._answer, self._done = answer, done

    def data_received(self, data: bytes) -> None:
        if not self._answer.arrivals or b"data: " in data:
            self._answer.arrivals.append(time.perf_counter())
        self._answer.body += data

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._answer.problem = repr(exc)
        if not self._done.done():
            self._done.set_result(None)


def request_of(port: int, number: int, characters: int) -> bytes:
    """Returns a request for a stream, whose prompt has 20 to 40 characters."""
    rng = Random(number)
    prompt = ""
    while len(prompt) < rng.randint(20, 40):
        prompt += rng.choice(WORDS) + " "
    body = json.dumps({"prompt": prompt, "max_tokens": characters, "stream": True, "seed": number}).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


async def asked(port: int, number: int, characters: int, connecting: asyncio.Semaphore) -> Answer:
    """Returns the answer to one request."""
    answer = Answer()
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    try:
        async with connecting:
            transport, _ = await loop.create_connection(lambda: Client(answer, done), "127.0.0.1", port)
        answer.sent = time.perf_counter()
        transport.write(request_of(port, number, characters))
        async with asyncio.timeout(LIMIT_SECONDS):
            await done
    except (OSError, TimeoutError) as error:
        answer.problem = repr(error)
    return answer


async def load(port: int, streams: int, characters: int) -> dict[str, object]:
    """Returns the figures of `streams` streams at the same time."""
    connecting = asyncio.Semaphore(CONNECTING)
    began = time.perf_counter()
    answers = await asyncio.gather(*(asked(port, number, characters, connecting) for number in range(streams)))
    seconds = time.perf_counter() - began
    counts = [answer.characters() for answer in answers]
    whole = [answer for answer in answers if not answer.problem]
    for answer, count in zip(answers, counts, strict=True):
        if not answer.problem and count != characters:
            answer.problem = f"{count} characters"
    return {
        "characters": sum(counts),
        "seconds": seconds,
        "first": [answer.arrivals[0] - answer.sent for answer in whole],
        "events": sum(len(answer.arrivals) for answer in whole),
        "problems": [answer.problem for answer in answers if answer.problem],
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(load(*map(int, sys.argv[1:4])))))
