"""Signals, in processes of their own that do nothing but wait for them."""

import signal
import subprocess
import sys

import pytest

_BEGIN = """
import asyncio, hashlib, signal, sys, time
signal.signal(signal.SIGHUP, {hangup})
from charloom.cli.interrupt import Interrupt, before_ending, watch_signals
watch_signals()
def say(line):
    sys.stdout.write(str(line) + "\\n")
    sys.stdout.flush()
"""
# Runs no bytecode for minutes, and leaves Python's lock to others.
_NATIVE = "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"
_WAIT = "say('ready'); time.sleep(100)"


def begun(code, hangup="signal.SIG_DFL"):
    process = subprocess.Popen(
        [sys.executable, "-c", _BEGIN.format(hangup=hangup) + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def ended(process):
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.parametrize(
    "code",
    [
        _NATIVE,
        "while True:\n    try: time.sleep(100)\n    except BaseException: pass",  # as a callback that swallows does
        "asyncio.run(asyncio.sleep(100))",  # which puts its own descriptor in the place of ours
    ],
)
def test_a_signal_ends_whatever_runs(code, number, status):
    process = begun(f"say('ready')\n{code}")
    process.send_signal(number)
    assert ended(process) == (status, "", "")


def test_the_first_ctrl_c_asks_and_the_second_ends_at_once():
    process = begun(
        "with Interrupt(say, 'all is saved', lambda: 12.3) as work:\n"
        f"    work.armed = True\n    say('ready')\n    {_NATIVE}"
    )
    process.send_signal(signal.SIGINT)
    asked = "stopping: all is saved, which takes about 12 s (Ctrl-C once more quits at once)\n"
    assert process.stdout.readline() == asked
    process.send_signal(signal.SIGTERM)  # a second one that is no Ctrl-C changes nothing
    process.send_signal(signal.SIGINT)
    assert ended(process) == (130, "", "")


def test_what_is_asked_to_stop_stops_in_good_order():
    process = begun(
        "with Interrupt(say, 'all is saved') as work:\n"
        "    work.armed = True\n    say('ready')\n"
        "    while not work.came: time.sleep(0.01)\n"
        "say(work.status)"
    )
    process.send_signal(signal.SIGTERM)
    status, out, err = ended(process)
    assert sorted(out.splitlines()) == ["143", "stopping: all is saved (Ctrl-C once more quits at once)"]
    assert (status, err) == (0, "")


@pytest.mark.parametrize("armed", [False, True])
def test_work_that_has_nothing_to_keep_is_ended(armed):
    inside, after = ("pass", _WAIT) if armed else (_WAIT, "")
    process = begun(f"with Interrupt(say, 'all is saved') as work:\n    work.armed = {armed}\n    {inside}\n{after}")
    process.send_signal(signal.SIGINT)
    assert ended(process) == (130, "", "")


@pytest.mark.parametrize(
    "action", ["say('the last words')", "say('the last words'); time.sleep(100)", "say('the last words'); 1 / 0"]
)
def test_last_words(action):
    process = begun(f"def words():\n    {action}\nwith before_ending(words):\n    {_WAIT}")
    process.send_signal(signal.SIGINT)
    assert ended(process) == (130, "the last words\n", "")


def test_a_signal_that_is_ignored_stays_so():
    process = begun(_WAIT, "signal.SIG_IGN")
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (143, "", "")


def test_a_signal_while_logging_is_imported_is_no_complaint():
    process = begun("import types; sys.modules['logging'] = types.ModuleType('logging')\n" + _WAIT)
    process.send_signal(signal.SIGINT)
    assert ended(process) == (130, "", "")
