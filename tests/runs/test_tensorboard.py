import struct

import pytest
from tensorboardX import event_file_writer
from tensorboardX.proto.event_pb2 import Event, SessionLog

from charloom.errors import OutputError
from charloom.runs import TensorBoardWriter
from charloom.training import Progress


def at(step):
    return Progress(
        step=step,
        steps=9,
        epoch=0.0,
        train_nats_per_char=1.0,
        chars_per_second=1.0,
        seconds_left=None,
        stopping=False,
    )


def records(path):
    data = path.read_bytes()
    while data:  # length, its checksum, an event, its checksum
        (length,) = struct.unpack("<Q", data[:8])
        yield Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]


def test_points_of_repeated_steps_are_hidden(tmp_path):
    with TensorBoardWriter(tmp_path / "plots") as writer:
        for step in (3, 5, 4):
            writer.add(at(step))
    (path,) = (tmp_path / "plots").iterdir()
    points = [
        (event.step, "hide" if event.session_log.status == SessionLog.START else "point")
        for event in list(records(path))[1:]
    ]
    # One point of the loss and one of the speed for each step.
    assert points == [(3, "hide"), *[(3, "point")] * 2, *[(5, "point")] * 2, (4, "hide"), *[(4, "point")] * 2]


def test_a_full_disk_is_reported_once(tmp_path, monkeypatch):
    def full(self, event):
        raise OSError(28, "No space left on device")

    with TensorBoardWriter(tmp_path / "plots") as writer:
        writer.add(at(1))
        monkeypatch.setattr(event_file_writer.EventsWriter, "write_event", full)
        with pytest.raises(OutputError, match="No space left on device"):
            writer.add(at(2))
        writer.add(at(3))


def test_a_file_in_place_of_the_folder_is_reported_once(tmp_path):
    (tmp_path / "plots").write_bytes(b"")
    with TensorBoardWriter(tmp_path / "plots") as writer:
        with pytest.raises(OutputError, match="it is not a folder"):
            writer.add(at(1))
        writer.add(at(2))
