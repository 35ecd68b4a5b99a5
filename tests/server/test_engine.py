"""The engine by itself: what it does when something breaks, and when it is told to stop."""

import asyncio
import contextlib
import threading

import numpy as np
import pytest

from charloom.inference import per_stream, read_on, write
from charloom.server.batch_scheduler import BatchScheduler, GenerationRequest
from charloom.server.engine import Engine
from charloom.server.limits import Limits
from charloom.server.model_session import ModelSession
from charloom.server.prefixes import PrefixStates
from charloom.server.problems import ApiError
from charloom.server.response_queue import ResponseQueue
from charloom.settings import SamplingSettings


def order_of(model, responses, length=50, prompt=(1, 2), seed=0, top_predictions=None, **more):
    return GenerationRequest(
        model=model,
        prompt=np.array(prompt, np.int32),
        length=length,
        settings=more.pop("settings", SamplingSettings()),
        seed=seed,
        stream_index=0,
        top_predictions=top_predictions,
        deliver=responses.put,
        **more,
    )


@pytest.fixture
def served_model(served_files):
    return ModelSession.of_file("letters", served_files["letters"])


@contextlib.asynccontextmanager
async def running(**options):
    """Yields an engine that works, and stops it."""
    engine = Engine(Limits(), **options)
    engine.start(asyncio.get_running_loop())
    try:
        yield engine
    finally:
        await asyncio.to_thread(engine.stop)


async def text_of(responses, request):
    """Returns the tokens of an request's text when they are all there."""
    tokens = []
    while len(tokens) < request.length:
        tokens += [token for one in await responses.take() if not one.is_prompt for token in one.token_ids.tolist()]
    return tokens


def alone(model, request):
    """Returns the tokens that an request's text has where it is the only one."""
    stream = read_on(model.network, model.begin, request.prompt)
    (blocks,) = per_stream(
        write(model.network, stream, request.length, request.settings, request.seed, [request.stream_index]), 1
    )
    return np.concatenate(list(blocks)).tolist()


def fails_for(seed, function, problem):
    """Returns `function` of some texts, which raises where the text of a seed is among them, having changed others."""

    def failing(texts, steps, places=slice(None)):
        tokens = function(steps, places)
        if (texts._writers["seed"][: len(texts)][places] == (0, seed)).all(axis=1).any():
            raise problem
        return tokens

    return failing


@pytest.mark.parametrize("top_predictions", [None, 2])
@pytest.mark.parametrize("problem", [ValueError("broken"), MemoryError()])
def test_a_text_that_cannot_be_written_ends_and_no_other(served_model, monkeypatch, caplog, problem, top_predictions):
    async def run():
        async with running() as engine:
            inboxes = [ResponseQueue(engine) for _ in range(9)]
            requests = [
                order_of(served_model, responses, 300 + 10 * seed, seed=seed, top_predictions=top_predictions)
                for seed, responses in enumerate(inboxes)
            ]
            wanted = [alone(served_model, request) for request in requests]
            texts = served_model.texts
            failing = fails_for(4, texts.write, problem)
            monkeypatch.setattr(texts, "write", lambda *arguments: failing(texts, *arguments))
            engine.submit(requests)
            with pytest.raises(ApiError, match="Its log says why"):
                await inboxes[4].take()
            for seed, responses in enumerate(inboxes):
                if seed != 4:
                    assert await text_of(responses, requests[seed]) == wanted[seed]
            assert engine.is_alive

    asyncio.run(run())
    assert len(served_model.texts) == 0
    assert caplog.text.count("a text could not go on") == 1


@pytest.mark.parametrize("name", ["read_some", "known_beginning"])
def test_a_prompt_that_cannot_be_read_ends_its_texts_and_no_other(served_model, monkeypatch, name):
    async def run():
        async with running() as engine:
            bad, good = ResponseQueue(engine), ResponseQueue(engine)
            request = order_of(served_model, good)
            wanted = alone(served_model, request)
            whole = getattr(served_model, name)

            def failing(*arguments):
                if any(isinstance(one, np.ndarray) and 7 in one.tolist() for one in arguments):
                    raise MemoryError
                return whole(*arguments)

            monkeypatch.setattr(served_model, name, failing)
            engine.submit([order_of(served_model, bad, prompt=[7, 7]), request])
            with pytest.raises(ApiError, match="Its log says why"):
                await bad.take()
            assert await text_of(good, request) == wanted

    asyncio.run(run())


def test_settings_that_sampling_cannot_take_are_the_requests_own(served_model):
    async def run():
        async with running() as engine:
            bad, good = ResponseQueue(engine), ResponseQueue(engine)
            request = order_of(served_model, good)
            wanted = alone(served_model, request)
            # Of one prompt: they are read together.
            broken = order_of(served_model, bad)
            broken.settings, broken.prompt = object(), request.prompt
            engine.submit([broken, request])
            with pytest.raises(ApiError, match="Its log says why"):
                await bad.take()
            assert await text_of(good, request) == wanted
            engine.submit([order_of(served_model, bad := ResponseQueue(engine), seed=2**64)])
            with pytest.raises(ApiError):
                await bad.take()

    asyncio.run(run())


def test_a_state_that_cannot_be_kept_costs_no_text(served_model, monkeypatch):
    def failing(*arguments):
        raise MemoryError

    async def run():
        async with running() as engine:
            request = order_of(served_model, responses := ResponseQueue(engine))
            monkeypatch.setattr(served_model.prefixes, "keep", failing)
            engine.submit([request])
            assert await text_of(responses, request) == alone(served_model, request)

    asyncio.run(run())


def test_a_text_that_cannot_be_delivered_ends_and_no_other(served_model, monkeypatch):
    def failing(*arguments):
        raise MemoryError

    async def run():
        async with running() as engine:
            bad, good = ResponseQueue(engine), ResponseQueue(engine)
            request = order_of(served_model, good, 300)
            broken = order_of(served_model, bad, 300, seed=1)
            broken.deliver = failing
            engine.submit([broken, request])
            assert await text_of(good, request) == alone(served_model, request)
            # What the responses cannot take ends the request.
            with monkeypatch.context() as patch:
                patch.setattr("charloom.server.response_queue._joined", failing)
                engine.submit([order_of(served_model, slow := ResponseQueue(engine), 10_000)])
                while slow._problem is None:
                    await asyncio.sleep(0.01)
            with pytest.raises(ApiError, match="Its log says why"):
                await slow.take()

    asyncio.run(run())


def test_where_a_round_fails_the_texts_of_the_model_are_given_up(served_files, served_model, monkeypatch, caplog):
    async def run():
        other = ModelSession.of_file("other", served_files["letters"])
        async with running() as engine:
            inboxes = [ResponseQueue(engine) for _ in range(4)]
            requests = [order_of(served_model, responses, 10**6) for responses in inboxes[:3]]
            kept = order_of(other, inboxes[3], 2_000)
            engine.submit([*requests, kept])
            await inboxes[0].take()
            monkeypatch.setattr(served_model.texts, "leave", lambda place: 1 / 0)
            engine.cancel(requests[:1])
            for responses in inboxes[1:3]:
                while responses._problem is None and not any(one.problem for one in responses._chunks.values()):
                    await asyncio.sleep(0.001)
                with pytest.raises(ApiError, match="Its log says why"):
                    await responses.take()
            assert await text_of(inboxes[3], kept) == alone(other, kept)
            monkeypatch.undo()
            again = order_of(served_model, responses := ResponseQueue(engine))
            engine.submit([again])
            assert await text_of(responses, again) == alone(served_model, again)

    asyncio.run(run())
    assert "all texts of letters are given up" in caplog.text


def test_where_giving_up_fails_the_engine_says_that_it_has_died(served_model, monkeypatch, caplog):
    async def run():
        died = asyncio.Event()
        async with running(died=died.set) as engine:
            engine.submit([order_of(served_model, responses := ResponseQueue(engine), 10**6)])
            await responses.take()
            monkeypatch.setattr(BatchScheduler, "look_after", lambda scheduler: 1 / 0)
            monkeypatch.setattr(BatchScheduler, "abandon", lambda scheduler: 1 / 0)
            await asyncio.wait_for(died.wait(), 60)
            with pytest.raises(ApiError) as refused:
                ResponseQueue(engine).submit([order_of(served_model, responses)])
            assert refused.value.status == 503

    asyncio.run(run())
    assert "the engine has died" in caplog.text


def test_who_leaves_is_worked_for_no_longer(served_model, monkeypatch):
    read, until = [], threading.Event()

    def reading(stream, token_ids, done, whole=served_model.read_some):
        read.append(done)
        until.wait(60)
        return whole(stream, token_ids[: done + 10], done)[0], stream

    async def run():
        async with running() as engine:
            responses = ResponseQueue(engine)
            requests = [
                order_of(served_model, responses, 0, prompt=np.zeros(60_000)),  # as /v1/next asks
                order_of(served_model, responses, 100, prompt=np.ones(60_000)),
            ]
            engine.submit(requests)
            while not read:
                await asyncio.sleep(0.001)
            engine.cancel(requests)
            until.set()
            while engine.active:
                await asyncio.sleep(0.001)
        # What was begun is finished, at most one turn of each; of some 12,000.
        assert len(read) <= 2

    monkeypatch.setattr(served_model, "read_some", reading)
    asyncio.run(run())


def test_it_stops_however_much_there_is_to_do(served_files):
    async def run():
        models = [ModelSession.of_file(f"model {number}", served_files["letters"]) for number in range(4)]
        for _ in range(8):
            engine = Engine(Limits())
            engine.start(asyncio.get_running_loop())
            responses = ResponseQueue(engine)
            engine.submit([order_of(model, responses, 10**9) for model in models for _ in range(5)])
            await responses.take()
            await asyncio.wait_for(asyncio.to_thread(engine.stop), 60)
            assert not engine.is_alive
            for model in models:
                model.texts.clear()

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
