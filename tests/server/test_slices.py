"""Responses in slices, and the memory budget that they share."""

import asyncio
from itertools import pairwise

import msgspec
import pytest

from charloom.server.memory_budget import MemoryBudget
from charloom.server.problems import ApiError
from charloom.server.slices import SLICE, Slices, json_pieces, send_json, sliced


def test_slices_give_the_json_of_the_whole_value():
    items = [f"{number}é" for number in range(3 * SLICE + 1)]
    value = {"a": 1, "list": [{"items": sliced(items, str)}, {"none": Slices([[], [1], [], [2]])}], "text": None}
    pieces = list(json_pieces(value))
    assert msgspec.json.decode(b"".join(pieces)) == {
        "a": 1,
        "list": [{"items": items}, {"none": [1, 2]}],
        "text": None,
    }
    assert max(map(len, pieces)) < 20 * SLICE
    assert b"".join(json_pieces([{}, [], Slices([])])) == b"[{},[],[]]"


def sent(value, raise_if_ended=lambda: None):
    messages = []

    async def send(message):
        messages.append(message)

    asyncio.run(send_json(value, send, raise_if_ended))
    return messages


def test_a_short_response_has_a_length_and_a_long_one_is_chunked():
    start, body = sent({"a": 1})
    assert (b"content-length", b"7") in start["headers"]
    assert body["body"] == b'{"a":1}'
    start, *bodies = sent({"a": sliced(range(100_000), int)})
    assert not any(name == b"content-length" for name, _ in start["headers"])
    assert [body.get("more_body", False) for body in bodies] == [True] * (len(bodies) - 1) + [False]
    assert len(bodies) > 3
    assert msgspec.json.decode(b"".join(body["body"] for body in bodies)) == {"a": list(range(100_000))}


def test_a_response_without_a_client_is_not_completed():
    made = []

    def making():
        for number in range(10_000):
            made.append(number)
            yield [str(number) * 1_000]

    class GoneError(Exception):
        pass

    def raise_if_ended():
        if made[-1] > 100:
            raise GoneError

    with pytest.raises(GoneError):
        sent(Slices(making()), raise_if_ended)
    assert made[-1] < 1_000


def test_other_tasks_run_while_a_response_is_created():
    turns = []

    async def run():
        async def other():
            while True:
                turns.append(len(made))
                await asyncio.sleep(0)

        async def send(message):
            pass

        task = asyncio.create_task(other())
        await send_json(Slices(making()), send, lambda: None)
        task.cancel()

    made = []

    def making():
        for _ in range(300):
            made.append(sum(range(20_000)))
            yield [1]

    asyncio.run(run())
    assert len(turns) > 10
    assert max(after - before for before, after in pairwise(turns)) < 100  # of 300


def test_the_memory_budget_is_shared_and_released():
    budget = MemoryBudget(100)
    with budget.reserved(60):
        with pytest.raises(ApiError, match="memory for responses") as refused, budget.reserved(50):
            pass
        assert refused.value.status == 429
        assert refused.value.headers == {"Retry-After": "1"}
        with budget.reserved(40):
            assert budget.used == 100
        assert budget.used == 60
    assert budget.used == 0
    with pytest.raises(ZeroDivisionError), budget.reserved(1_000):  # a single response always fits
        raise ZeroDivisionError
    assert budget.used == 0
