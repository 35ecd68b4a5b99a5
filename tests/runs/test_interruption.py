import signal
import threading

import numpy as np
import pytest

import charloom
from charloom.data import TokenStream, ordered_pass
from charloom.models import Network
from charloom.runs import planning, training_run
from charloom.settings import NetworkSettings
from charloom.training import Evaluation, Notice, Progress

TEXT = "the quick brown fox\n" * 60
SETTINGS = {"hidden": 8, "embedding": 4, "batch_size": 4, "sequence_length": 16}


@pytest.fixture
def book(tmp_path):
    (tmp_path / "book.txt").write_text(TEXT)
    return tmp_path / "book.txt"


def ctrl_c_at(kind, times=1):
    """Presses Ctrl-C at the first event of this kind."""
    left = [times]

    def on_event(event):
        if isinstance(event, kind):
            while left[0]:
                left[0] -= 1
                signal.raise_signal(signal.SIGINT)

    return on_event


@pytest.mark.parametrize("run", [None, "run"])
def test_the_best_model_so_far_is_returned_with_a_warning(book, tmp_path, run):
    folder = None if run is None else tmp_path / run
    with pytest.warns(RuntimeWarning, match="interrupted after [0-9,]+ steps: this is the best"):
        model = charloom.train(book, steps=100_000, run=folder, on_event=ctrl_c_at(Evaluation), **SETTINGS)
    assert 0 < model.training["kept_step"] < 100_000
    assert model.generate("the", 10).startswith("the")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if folder is not None:
        with pytest.warns(RuntimeWarning, match="interrupted"):
            charloom.resume(folder, ctrl_c_at(Progress))


@pytest.mark.parametrize(("kind", "times"), [(Notice, 1), (Evaluation, 2)])
def test_ctrl_c_raises_without_a_model_and_the_second_time(book, kind, times):
    with pytest.raises(KeyboardInterrupt):
        charloom.train(book, steps=100_000, on_event=ctrl_c_at(kind, times), **SETTINGS)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_hosts_own_handler_is_not_replaced(book, monkeypatch):
    pressed = []
    before = signal.signal(signal.SIGINT, lambda *_: pressed.append(1))
    try:
        charloom.train(book, steps=3, on_event=ctrl_c_at(Evaluation), **SETTINGS)
    finally:
        signal.signal(signal.SIGINT, before)
    assert pressed == [1]


def test_a_long_stop_is_announced(book, monkeypatch):
    monkeypatch.setattr(training_run, "closing_seconds", lambda *arguments: 12.0)
    notices = []
    press = ctrl_c_at(Evaluation)

    def on_event(event):
        press(event)
        if isinstance(event, Notice):
            notices.append(event.text)

    with pytest.warns(RuntimeWarning, match="interrupted"):
        charloom.train(book, steps=100_000, on_event=on_event, **SETTINGS)
    assert notices[-1] == "scoring the held-out text, which takes about 12 s"


def test_the_closing_seconds_grow_with_the_text():
    network = Network.init(NetworkSettings(hidden=8, embedding=4), 10, None, np.random.default_rng(0))
    short, long = (TokenStream.from_documents([np.zeros(size, np.int32)]) for size in (1_000, 1_000_000))
    seconds = [planning.closing_seconds(network, stream, ordered_pass) for stream in (short, long)]
    assert 0 < seconds[0] < seconds[1]


def test_training_works_in_other_threads(book):
    models = []
    thread = threading.Thread(target=lambda: models.append(charloom.train(book, steps=3, **SETTINGS)))
    thread.start()
    thread.join()
    assert models[0].training["steps"] == 3
