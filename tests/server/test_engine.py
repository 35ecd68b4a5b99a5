"""The engine by itself: what it does when something breaks, and when it is told to stop."""

import asyncio

import numpy as np
import pytest

from charloom.inference import read_on
from charloom.server.desk import Order
from charloom.server.engine import Engine
from charloom.server.inbox import Inbox
from charloom.server.limits import Limits
from charloom.server.prefixes import PrefixStates
from charloom.server.problems import ApiError
from charloom.server.served import ServedModel
from charloom.settings import SamplingSettings


def order_of(model, inbox, length=50, prompt=(1, 2)):
    return Order(
        model=model,
        prompt=np.array(prompt, np.int32),
        length=length,
        settings=SamplingSettings(),
        seed=0,
        stream_index=0,
        deliver=inbox.put,
    )


@pytest.fixture
def served_model(served_files):
    return ServedModel.of_file("letters", served_files["letters"])


def test_what_breaks_ends_its_texts_and_no_others(served_model, monkeypatch, caplog):
    async def run():
        engine = Engine(Limits())
        engine.start(asyncio.get_running_loop())
        broken, whole = Inbox(engine), Inbox(engine)
        write = served_model.texts.write
        monkeypatch.setattr(served_model.texts, "write", lambda *arguments: 1 / 0)
        engine.submit([order_of(served_model, broken) for _ in range(3)])
        with pytest.raises(ApiError, match="Its log says why"):
            await broken.take()
        monkeypatch.setattr(served_model.texts, "write", write)
        engine.submit([order_of(served_model, whole)])
        tokens = 0
        while tokens < 50:
            tokens += sum(len(one.token_ids) for one in await whole.take())
        assert engine.is_alive
        await asyncio.to_thread(engine.stop)
        assert not engine.is_alive

    asyncio.run(run())
    assert len(served_model.texts) == 0
    assert "the engine failed" in caplog.text


def test_it_stops_however_much_there_is_to_do(served_files):
    async def run():
        models = [ServedModel.of_file(f"model {number}", served_files["letters"]) for number in range(4)]
        for _ in range(8):
            engine = Engine(Limits())
            engine.start(asyncio.get_running_loop())
            inbox = Inbox(engine)
            engine.submit([order_of(model, inbox, 10**9) for model in models for _ in range(5)])
            await inbox.take()
            await asyncio.wait_for(asyncio.to_thread(engine.stop), 10)
            for model in models:
                while len(model.texts):
                    model.texts.leave(0)

    asyncio.run(run())


def read(served_model, ids):
    return read_on(served_model.network, served_model.begin, ids)


def test_known_beginnings_are_found_and_bounded(served_model):
    def found(*ids):
        length, stream = prefixes.longest(np.array(ids, np.uint8))
        assert stream is (states[length] if length else None)
        return length

    states = {length: read(served_model, np.arange(length, dtype=np.uint8)) for length in (3, 5, 9)}
    prefixes = PrefixStates(1 << 30)
    for length, stream in states.items():
        prefixes.keep(np.arange(length, dtype=np.uint8), stream)
    room = prefixes.size
    prefixes = PrefixStates(room)
    for length, stream in states.items():
        prefixes.keep(np.arange(length, dtype=np.uint8), stream)
    assert found(*range(20)) == 9
    assert found(*range(8)) == 5
    assert found(*range(3)) == 3
    assert found(*range(2)) == 0
    assert found(0, 1, 2, 9, 9, 9) == 3
    assert found() == 0
    assert (prefixes.hits, prefixes.misses) == (4, 2)
    # A fourth takes the place of the one that was used the longest ago.
    prefixes.keep(np.array([7, 7, 7, 7]), states[3])
    assert len(prefixes) == 3
    assert found(*range(20)) == 5
    assert prefixes.size <= room
    prefixes.keep(np.zeros(10**6, np.int32), states[3])  # larger than all the room
    assert len(prefixes) == 3


def test_texts_of_one_hash_are_not_taken_for_each_other(served_model, monkeypatch):
    prefixes = PrefixStates(1 << 20)
    monkeypatch.setattr(prefixes, "_hashes", lambda ids: np.zeros(len(ids) + 1, np.uint64))
    prefixes.keep(np.array([1, 2, 3]), served_model.begin)
    assert prefixes.longest(np.array([1, 2, 4, 5]))[0] == 0
    assert prefixes.longest(np.array([1, 2, 3, 5]))[0] == 3
