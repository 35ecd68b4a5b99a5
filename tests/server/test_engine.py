"""The engine without a server: failures, and stopping."""

import asyncio
import contextlib
import threading

import numpy as np
import pytest

from charloom.inference import generate_tokens, read_tokens
from charloom.server.batch_scheduler import BatchScheduler
from charloom.server.engine import Engine
from charloom.server.generation_request import GenerationRequest
from charloom.server.limits import Limits
from charloom.server.model_session import ModelSession
from charloom.server.prefix_cache import PrefixCache
from charloom.server.problems import ApiError
from charloom.server.response_queue import ResponseQueue
from charloom.settings import SamplingSettings


def request_of(model, responses, length=50, prompt=(1, 2), seed=0, top_predictions=None, **more):
    return GenerationRequest(
        model=model,
        prompt=np.array(prompt, np.int32),
        length=length,
        settings=more.pop("settings", SamplingSettings()),
        seed=seed,
        stream_index=0,
        top_predictions=top_predictions,
        on_chunk=responses.put,
        **more,
    )


@pytest.fixture
def session(model_files):
    return ModelSession.from_file("letters", model_files["letters"])


@contextlib.asynccontextmanager
async def running(**options):
    """Yields a running engine, and stops it."""
    engine = Engine(Limits(), **options)
    engine.start(asyncio.get_running_loop())
    try:
        yield engine
    finally:
        await asyncio.to_thread(engine.stop)


async def text_of(responses, request):
    """Returns the tokens of a request's text when all have arrived."""
    tokens = []
    while len(tokens) < request.length:
        tokens += [token for one in await responses.take() if not one.is_prompt for token in one.token_ids.tolist()]
    return tokens


def text_alone(model, request):
    """Returns the tokens of a request's text if it is generated without others."""
    state = read_tokens(model.network, model.start_state, request.prompt)
    indexes = [request.stream_index]
    blocks = generate_tokens(model.network, state, request.length, request.settings, request.seed, indexes)
    return np.concatenate(list(blocks), axis=1)[0].tolist()


def fails_for(seed, function, problem):
    """Returns `function`, which raises after its work if the text with `seed` is among the texts."""

    def failing(texts, steps, places=slice(None)):
        tokens = function(steps, places)
        if (texts._samplers["seed"][: len(texts)][places] == (0, seed)).all(axis=1).any():
            raise problem
        return tokens

    return failing


@pytest.mark.parametrize("top_predictions", [None, 2])
@pytest.mark.parametrize("problem", [ValueError("broken"), MemoryError()])
def test_a_text_that_fails_does_not_affect_others(session, monkeypatch, caplog, problem, top_predictions):
    async def run():
        async with running() as engine:
            queues = [ResponseQueue(engine) for _ in range(9)]
            requests = [
                request_of(session, responses, 300 + 10 * seed, seed=seed, top_predictions=top_predictions)
                for seed, responses in enumerate(queues)
            ]
            expected = [text_alone(session, request) for request in requests]
            texts = session.batch
            failing = fails_for(4, texts.generate, problem)
            monkeypatch.setattr(texts, "generate", lambda *arguments: failing(texts, *arguments))
            engine.submit(requests)
            with pytest.raises(ApiError, match="See its log for the reason"):
                await queues[4].take()
            for seed, responses in enumerate(queues):
                if seed != 4:
                    assert await text_of(responses, requests[seed]) == expected[seed]
            assert engine.is_alive

    asyncio.run(run())
    assert len(session.batch) == 0
    assert caplog.text.count("cannot continue a text") == 1


@pytest.mark.parametrize("name", ["read_chunk", "cached_prefix"])
def test_a_prompt_that_fails_does_not_affect_others(session, monkeypatch, name):
    async def run():
        async with running() as engine:
            bad, good = ResponseQueue(engine), ResponseQueue(engine)
            request = request_of(session, good)
            expected = text_alone(session, request)
            whole = getattr(session, name)

            def failing(*arguments):
                if any(isinstance(one, np.ndarray) and 7 in one.tolist() for one in arguments):
                    raise MemoryError
                return whole(*arguments)

            monkeypatch.setattr(session, name, failing)
            engine.submit([request_of(session, bad, prompt=[7, 7]), request])
            with pytest.raises(ApiError, match="See its log for the reason"):
                await bad.take()
            assert await text_of(good, request) == expected

    asyncio.run(run())


def test_invalid_sampling_settings_fail_only_their_request(session):
    async def run():
        async with running() as engine:
            bad, good = ResponseQueue(engine), ResponseQueue(engine)
            request = request_of(session, good)
            expected = text_alone(session, request)
            # Both have the same prompt, which is read once.
            broken = request_of(session, bad)
            broken.settings, broken.prompt = object(), request.prompt
            engine.submit([broken, request])
            with pytest.raises(ApiError, match="See its log for the reason"):
                await bad.take()
            assert await text_of(good, request) == expected
            engine.submit([request_of(session, bad := ResponseQueue(engine), seed=2**64)])
            with pytest.raises(ApiError):
                await bad.take()

    asyncio.run(run())


def test_a_state_that_cannot_be_cached_does_not_affect_its_text(session, monkeypatch):
    def failing(*arguments):
        raise MemoryError

    async def run():
        async with running() as engine:
            request = request_of(session, responses := ResponseQueue(engine))
            monkeypatch.setattr(session.prefix_cache, "put", failing)
            engine.submit([request])
            assert await text_of(responses, request) == text_alone(session, request)

    asyncio.run(run())


def test_a_chunk_that_cannot_be_delivered_does_not_affect_others(session, monkeypatch):
    def failing(*arguments):
        raise MemoryError

    async def run():
        async with running() as engine:
            bad, good = ResponseQueue(engine), ResponseQueue(engine)
            request = request_of(session, good, 300)
            broken = request_of(session, bad, 300, seed=1)
            broken.on_chunk = failing
            engine.submit([broken, request])
            assert await text_of(good, request) == text_alone(session, request)
            # A chunk that the queue cannot take ends the request.
            with monkeypatch.context() as patch:
                patch.setattr("charloom.server.response_queue._joined", failing)
                engine.submit([request_of(session, slow := ResponseQueue(engine), 10_000)])
                while slow._problem is None:
                    await asyncio.sleep(0.01)
            with pytest.raises(ApiError, match="See its log for the reason"):
                await slow.take()

    asyncio.run(run())


def test_a_failed_round_ends_the_texts_of_its_model(model_files, session, monkeypatch, caplog):
    async def run():
        other = ModelSession.from_file("other", model_files["letters"])
        async with running() as engine:
            queues = [ResponseQueue(engine) for _ in range(4)]
            requests = [request_of(session, responses, 10**6) for responses in queues[:3]]
            kept = request_of(other, queues[3], 2_000)
            engine.submit([*requests, kept])
            await queues[0].take()
            monkeypatch.setattr(session.batch, "remove", lambda place: 1 / 0)
            engine.cancel(requests[:1])
            for responses in queues[1:3]:
                while responses._problem is None and not any(one.problem for one in responses._chunks.values()):
                    await asyncio.sleep(0.001)
                with pytest.raises(ApiError, match="See its log for the reason"):
                    await responses.take()
            assert await text_of(queues[3], kept) == text_alone(other, kept)
            monkeypatch.undo()
            again = request_of(session, responses := ResponseQueue(engine))
            engine.submit([again])
            assert await text_of(responses, again) == text_alone(session, again)

    asyncio.run(run())
    assert "ending all texts of letters" in caplog.text


def test_the_engine_reports_its_death(session, monkeypatch, caplog):
    async def run():
        died = asyncio.Event()
        async with running(on_death=died.set) as engine:
            engine.submit([request_of(session, responses := ResponseQueue(engine), 10**6)])
            await responses.take()
            monkeypatch.setattr(BatchScheduler, "refresh", lambda scheduler: 1 / 0)
            monkeypatch.setattr(BatchScheduler, "abort_all", lambda scheduler: 1 / 0)
            await asyncio.wait_for(died.wait(), 60)
            with pytest.raises(ApiError) as refused:
                ResponseQueue(engine).submit([request_of(session, responses)])
            assert refused.value.status == 503

    asyncio.run(run())
    assert "the engine has died" in caplog.text


def test_cancelled_requests_are_not_continued(session, monkeypatch):
    read, until = [], threading.Event()

    def reading(state, token_ids, done, whole=session.read_chunk):
        read.append(done)
        until.wait(60)
        return whole(state, token_ids[: done + 10], done)[0], state

    async def run():
        async with running() as engine:
            responses = ResponseQueue(engine)
            requests = [
                request_of(session, responses, 0, prompt=np.zeros(60_000)),  # as for /v1/next
                request_of(session, responses, 100, prompt=np.ones(60_000)),
            ]
            engine.submit(requests)
            while not read:
                await asyncio.sleep(0.001)
            engine.cancel(requests)
            until.set()
            while engine.active:
                await asyncio.sleep(0.001)
        # At most one chunk of each prompt is read, of about 12,000.
        assert len(read) <= 2

    monkeypatch.setattr(session, "read_chunk", reading)
    asyncio.run(run())


def test_the_engine_stops_during_any_amount_of_work(model_files):
    async def run():
        models = [ModelSession.from_file(f"model {number}", model_files["letters"]) for number in range(4)]
        for _ in range(8):
            engine = Engine(Limits())
            engine.start(asyncio.get_running_loop())
            responses = ResponseQueue(engine)
            engine.submit([request_of(model, responses, 10**9) for model in models for _ in range(5)])
            await responses.take()
            await asyncio.wait_for(asyncio.to_thread(engine.stop), 60)
            assert not engine.is_alive
            for model in models:
                model.batch.clear()

    asyncio.run(run())


def read(session, ids):
    return read_tokens(session.network, session.start_state, ids)


def test_prefixes_are_found_and_the_cache_is_bounded(session):
    def found(*ids):
        length, state = prefixes.longest(np.array(ids, np.uint8))
        assert state is (states[length] if length else None)
        return length

    states = {length: read(session, np.arange(length, dtype=np.uint8)) for length in (3, 5, 9)}
    prefixes = PrefixCache(1 << 30)
    for length, state in states.items():
        prefixes.put(np.arange(length, dtype=np.uint8), state)
    size = prefixes.size
    prefixes = PrefixCache(size)
    for length, state in states.items():
        prefixes.put(np.arange(length, dtype=np.uint8), state)
    assert found(*range(20)) == 9
    assert found(*range(8)) == 5
    assert found(*range(3)) == 3
    assert found(*range(2)) == 0
    assert found(0, 1, 2, 9, 9, 9) == 3
    assert found() == 0
    assert (prefixes.hits, prefixes.misses) == (4, 2)
    # A fourth entry replaces the least recently used one.
    prefixes.put(np.array([7, 7, 7, 7]), states[3])
    assert len(prefixes) == 3
    assert found(*range(20)) == 5
    assert prefixes.size <= size
    prefixes.put(np.zeros(10**6, np.int32), states[3])  # larger than the cache
    assert len(prefixes) == 3


def test_texts_with_equal_hashes_are_not_confused(session, monkeypatch):
    prefixes = PrefixCache(1 << 20)
    monkeypatch.setattr(prefixes, "_hashes", lambda ids: np.zeros(len(ids) + 1, np.uint64))
    prefixes.put(np.array([1, 2, 3]), session.start_state)
    assert prefixes.longest(np.array([1, 2, 4, 5]))[0] == 0
    assert prefixes.longest(np.array([1, 2, 3, 5]))[0] == 3
