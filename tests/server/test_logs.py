"""Log lines that are unread, that cannot be written, and that quote text which would forge lines."""

import logging
import os
import sys
import threading

import pytest

from charloom.server.logs import OneLineFormatter, QueuedHandler
from tests.server.conftest import eventually


@pytest.fixture
def logger():
    found = logging.Logger("test")
    yield found
    found.handlers.clear()


def handled(logger, write, max_bytes=1000):
    handler = QueuedHandler(write, max_bytes)
    handler.setFormatter(OneLineFormatter("%(message)s"))
    logger.addHandler(handler)
    return handler


def test_lines_are_written_in_order(logger):
    written = []
    handler = handled(logger, written.append)
    for number in range(20):
        logger.info("line %d", number)
    handler.flush()
    assert written == [b"line %d\n" % number for number in range(20)]


def test_unread_lines_are_dropped_and_counted(logger):
    read, write = os.pipe()
    handler = handled(logger, lambda data: os.write(write, data), max_bytes=10_000)
    for _ in range(100):  # far more than fits into a pipe and the queue
        logger.info("%s", "x" * 5_000)
    handler.flush()  # returns after half a second
    text = b""

    def read_all():
        nonlocal text
        while b"the last" not in text:
            text += os.read(read, 65_536)

    reader = threading.Thread(target=read_all)
    reader.start()
    for _ in range(100):
        handler.flush()
    logger.info("the last")
    reader.join(60)
    lines = text.split(b"\n")
    dropped = [int(line.split()[0]) for line in lines if b"log lines were dropped, because nothing read them" in line]
    count = sum(line.startswith(b"xxxx") for line in lines)
    assert sum(dropped) == 100 - count
    assert count < 50
    assert lines[-2] == b"the last"
    os.close(read)
    os.close(write)


def test_a_missing_reader_does_not_block_logging(logger):
    tried = []

    def write(data):
        tried.append(data)
        raise BrokenPipeError

    handled(logger, write)
    logger.info("one")
    assert eventually(lambda: tried == [b"one\n"])
    logger.info("two")
    assert eventually(lambda: tried == [b"one\n", b"two\n"])


def test_quoted_text_cannot_forge_log_lines(logger):
    written = []
    handler = handled(logger, written.append)
    logger.info("a\n2026-01-01 forged\x1b[31m\u202e\ud800%s", "\r\x00")
    try:
        raise ValueError("\x1b[31m\rforged")
    except ValueError:
        logger.exception("failed\nforged")
    handler.flush()
    assert written[0] == b"a\\n2026-01-01 forged\\x1b[31m\\u202e\\ud800\\r\\x00\n"
    lines = written[1].decode().split("\n")
    assert lines[0] == "failed\\nforged"
    assert lines[1].startswith("Traceback")
    assert lines[-2] == "ValueError: \\x1b[31m\\rforged"


def test_standard_error_without_a_file_descriptor_works(logger, monkeypatch):
    class Shown:
        text = ""

        def write(self, text):
            self.text += text

    shown = Shown()
    monkeypatch.setattr(sys, "stderr", shown)
    handler = QueuedHandler()
    logger.addHandler(handler)
    logger.info("line")
    handler.flush()
    assert shown.text == "line\n"
