from charloom.cli.terminal import PhaseTimer
from charloom.training import Evaluating, Notice, Progress


def test_the_estimate_is_the_time_of_the_last_phase():
    now = [0.0]
    timer = PhaseTimer(lambda: now[0])
    assert timer.seconds_left() is None
    timer.follow(Notice("starts"))
    now[0] = 10.0
    timer.follow(Progress(1, 2, 0.1, 1.0, 0.0, None))
    now[0] = 14.0
    assert timer.seconds_left() == 6.0
    now[0] = 21.0  # longer than anything before
    assert timer.seconds_left() == 10.0
    timer.follow(Evaluating(40.0))
    now[0] = 24.0
    assert timer.seconds_left() == 37.0
