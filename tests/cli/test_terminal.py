from charloom.cli.terminal import Beat
from charloom.training import Evaluating, Notice, Progress


def test_what_is_under_way_takes_as_long_as_the_last_did():
    now = [0.0]
    beat = Beat(lambda: now[0])
    assert beat.left() is None
    beat.follow(Notice("begins"))
    now[0] = 10.0
    beat.follow(Progress(1, 2, 0.1, 1.0, 0.0, None))
    now[0] = 14.0
    assert beat.left() == 6.0
    now[0] = 21.0  # longer than anything before
    assert beat.left() == 10.0
    beat.follow(Evaluating(40.0))
    now[0] = 24.0
    assert beat.left() == 37.0
