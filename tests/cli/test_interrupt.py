"""Signals, in separate processes that only wait for them."""

import signal
import subprocess
import sys

import pytest

_SETUP = """
import asyncio, hashlib, signal, sys, time
signal.signal(signal.SIGHUP, {hangup})
from charloom.cli.interrupt import Interrupt, before_exit, watch_signals
watch_signals()
def say(line):
    sys.stdout.write(str(line) + "\\n")
    sys.stdout.flush()
"""
# Runs no bytecode for minutes, and releases Python's lock.
_NATIVE = "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"
_WAIT = "say('ready'); time.sleep(100)"


def started(code, hangup="signal.SIG_DFL"):
    process = subprocess.Popen(
        [sys.executable, "-c", _SETUP.format(hangup=hangup) + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def result(process):
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.parametrize(
    "code",
    [
        _NATIVE,
        "while True:\n    try: time.sleep(100)\n    except BaseException: pass",  # as a callback that swallows errors
        "asyncio.run(asyncio.sleep(100))",  # asyncio replaces the wakeup descriptor by its own
    ],
)
def test_a_signal_ends_any_code(code, number, status):
    process = started(f"say('ready')\n{code}")
    process.send_signal(number)
    assert result(process) == (status, "", "")


def test_the_first_ctrl_c_asks_to_stop_and_the_second_quits():
    process = started(
        "with Interrupt(say, 'saving', lambda: 12.3) as interrupt:\n"
        f"    interrupt.armed = True\n    say('ready')\n    {_NATIVE}"
    )
    process.send_signal(signal.SIGINT)
    line = "stopping: saving, which takes about 12 s (press Ctrl-C again to quit at once)\n"
    assert process.stdout.readline() == line
    process.send_signal(signal.SIGTERM)  # a second signal other than Ctrl-C changes nothing
    process.send_signal(signal.SIGINT)
    assert result(process) == (130, "", "")


def test_armed_work_stops_cleanly():
    process = started(
        "with Interrupt(say, 'saving') as interrupt:\n"
        "    interrupt.armed = True\n    say('ready')\n"
        "    while not interrupt.signal_number: time.sleep(0.01)\n"
        "say(interrupt.status)"
    )
    process.send_signal(signal.SIGTERM)
    status, out, err = result(process)
    assert sorted(out.splitlines()) == ["143", "stopping: saving (press Ctrl-C again to quit at once)"]
    assert (status, err) == (0, "")


@pytest.mark.parametrize("armed", [False, True])
def test_a_signal_quits_if_there_is_nothing_to_keep(armed):
    inside, after = ("pass", _WAIT) if armed else (_WAIT, "")
    process = started(
        f"with Interrupt(say, 'saving') as interrupt:\n    interrupt.armed = {armed}\n    {inside}\n{after}"
    )
    process.send_signal(signal.SIGINT)
    assert result(process) == (130, "", "")


@pytest.mark.parametrize(
    "action", ["say('the last line')", "say('the last line'); time.sleep(100)", "say('the last line'); 1 / 0"]
)
def test_an_action_before_exit_is_called(action):
    process = started(f"def action():\n    {action}\nwith before_exit(action):\n    {_WAIT}")
    process.send_signal(signal.SIGINT)
    assert result(process) == (130, "the last line\n", "")


def test_an_ignored_signal_stays_ignored():
    process = started(_WAIT, "signal.SIG_IGN")
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert result(process) == (143, "", "")


def test_a_signal_while_logging_is_imported_prints_nothing():
    process = started("import types; sys.modules['logging'] = types.ModuleType('logging')\n" + _WAIT)
    process.send_signal(signal.SIGINT)
    assert result(process) == (130, "", "")
