"""The worker thread that scores texts."""

import asyncio
import threading

import numpy as np
import pytest

from charloom.inference import Scorer
from charloom.inference.token_scorer import BlockShape, TokenScorer
from charloom.server.worker import Task, TaskCancelledError, Worker
from charloom.settings import TextSettings
from charloom.text import Vocabulary
from tests.server.conftest import LETTERS, model_of


def run(main):
    asyncio.run(asyncio.wait_for(main, 60))


def test_tasks_run_in_order_and_fail_separately():
    async def main():
        worker, done = Worker("test"), asyncio.Event()
        tasks = [
            Task(lambda task: threading.current_thread().name, lambda: None),
            Task(lambda task: 1 / 0, lambda: None),
            Task(lambda task: 3, done.set),
        ]
        for task in tasks:
            worker.submit(task)
        await done.wait()
        assert (tasks[0].result, tasks[2].result) == ("test", 3)
        assert isinstance(tasks[1].problem, ZeroDivisionError)
        worker.stop()

    run(main())


def test_cancelled_tasks_end_at_their_next_check_or_never_start():
    async def main():
        worker, begun, ended, checks = Worker("test"), threading.Event(), asyncio.Event(), []

        def endless(task):
            while True:
                begun.set()
                checks.append(task.check())

        running, waiting, last = (
            Task(endless, ended.set),
            Task(lambda task: 1, lambda: None),
            Task(lambda task: 2, ended.set),
        )
        for task in (running, waiting):
            worker.submit(task)
        await asyncio.to_thread(begun.wait)
        assert worker.count == 2
        worker.cancel(waiting)
        worker.cancel(running)
        await ended.wait()
        assert isinstance(running.problem, TaskCancelledError)
        ended.clear()
        worker.submit(last)
        await ended.wait()
        assert (last.result, waiting.result) == (2, None)
        worker.stop()

    run(main())


def test_the_worker_stops_during_a_task():
    async def main():
        worker, begun = Worker("test"), threading.Event()

        def endless(task):
            while True:
                begun.set()
                task.check()

        worker.submit(task := Task(endless, lambda: None))
        await asyncio.to_thread(begun.wait)
        worker.stop()
        assert isinstance(task.problem, TaskCancelledError)
        assert worker._thread.daemon  # a task that does not end cannot delay the process
        assert not worker._thread.is_alive()

    run(main())


class EnoughError(Exception):
    """Raised to stop the scoring."""


@pytest.mark.parametrize("parameters", [3_000, 300_000, 5_000_000, 38_000_000])
def test_calls_are_short_for_networks_of_any_size(parameters):
    for batch_size, factor in ((1, 1), (64, 12)):
        shape = BlockShape.for_network(batch_size, parameters, is_short=True)
        assert 2 <= shape.sequence_length <= 64
        work = shape.capacity * shape.sequence_length * parameters * factor
        assert work <= 1 << 25 or (shape.capacity, shape.sequence_length) == (1, 2)


def test_check_is_called_between_calls_and_does_not_change_scores(monkeypatch):
    model = model_of(hidden=40)
    text = "to be or not to be " * 500
    monkeypatch.setattr("charloom.inference.token_scorer._SHORT_WORK", 64 * model.network.parameters)
    checks = []
    vocabulary = Vocabulary("chars", LETTERS)
    scorer = Scorer(model.network, vocabulary, TextSettings(), check=lambda: checks.append(1))
    whole = model.score(text)
    np.testing.assert_array_equal(scorer.begin().score(text)[0].nats, whole.nats)
    assert len(checks) == -(-len(text) // 64)
    texts = ["abc", text[:300], text[:200], ""] * 100
    checks.clear()
    for one, other in zip(scorer.score(texts), model.score_many(texts), strict=True):
        np.testing.assert_allclose(one.nats, other.nats, atol=1e-5)
    assert len(checks) > 10

    def enough():
        checks.append(1)
        if len(checks) > 5:
            raise EnoughError

    checks.clear()
    scorer = Scorer(model.network, vocabulary, TextSettings(), check=enough)
    for work in (lambda: scorer.begin().score(text), lambda: scorer.score(texts)):
        with pytest.raises(EnoughError):
            work()
    assert len(checks) == 7  # the second scoring raised at its first check
    assert TokenScorer(model.network)._shape == (1, 64, 64)
