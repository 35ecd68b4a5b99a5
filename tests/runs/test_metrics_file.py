import json
import os

import pytest

from charloom.errors import OutputError, RunFolderError
from charloom.runs.metrics_file import MetricsFile


def line(count, **changes):
    values = {
        "step": count,
        "train_nats_per_char": 1.5,
        "validation_nats_per_char": None,
        "epoch": 0.5,
        "validation_bits_per_char": 2.0,
        "improved": True,
    }
    return json.dumps(values | changes).encode() + b"\n"


@pytest.fixture
def metrics(tmp_path):
    return MetricsFile(tmp_path / "metrics.jsonl")


def test_later_and_incomplete_lines_are_removed(metrics):
    assert metrics.remove_after(5) == []
    for step in (2, 4, 6):
        metrics.add(json.loads(line(step)))
    with metrics.path.open("ab") as file:
        file.write(line(8)[:20])
    assert metrics.remove_after(4) == []
    assert metrics.path.read_bytes() == line(2) + line(4)
    assert metrics.remove_after(0) == []
    assert metrics.path.read_bytes() == b""


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        (b"[]\n", "line 2: its content is [], expected an object"),
        (b"\0" * 100 + b"\n", "line 2 is damaged: it is not valid JSON"),
        (b"\xff\n", "line 2 is damaged: its text is not valid Unicode"),
        (b"\n", "line 2 is damaged"),
        (b"[" * 60_000 + b"\n", "line 2 is damaged: its JSON is too deeply nested"),
        (line(3, step="3"), "line 2: step is '3', expected an integer"),
        (line(3, step=[]), "line 2: step is [], expected an integer"),
        (line(3, epoch=None), "line 2: epoch is None, expected a number"),
        (line(3, epoch=float("nan")), "line 2 is damaged: it is not valid JSON"),
        (line(3, more=1), "line 2: more is not a field that this version knows"),
        (line(2), "line 2: step is 2, expected a step after 2."),
        (b"x" * 200_000 + b"\n", "line 2 is damaged: it is not valid JSON"),
    ],
)
def test_damaged_lines_are_removed_and_the_first_is_reported(metrics, damaged, message):
    metrics.path.write_bytes(line(2) + damaged + line(4))
    (notice,) = metrics.remove_after(9)
    assert f"metrics.jsonl, {message}" in notice
    assert notice.endswith("Removing 1 damaged line from the metrics")
    assert len(notice) < 700
    assert metrics.path.read_bytes() == line(2) + line(4)


def test_many_damaged_lines_give_one_notice(metrics):
    metrics.path.write_bytes(b"5\n" * 10_000 + line(4))
    (notice,) = metrics.remove_after(9)
    assert "line 1: its content is 5" in notice
    assert notice.endswith("Removing 10,000 damaged lines from the metrics")
    assert metrics.path.read_bytes() == line(4)


def test_other_kinds_of_files_are_refused_without_waiting(metrics):
    os.mkfifo(metrics.path)
    with pytest.raises(OutputError, match=r"cannot write .*metrics\.jsonl"):
        metrics.add({})
    with pytest.raises(RunFolderError, match=r"cannot read .*metrics\.jsonl: it is not a regular file"):
        metrics.remove_after(1)
    metrics.path.unlink()
    metrics.path.mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*metrics\.jsonl"):
        metrics.add({})
    with pytest.raises(RunFolderError, match=r"cannot read .*metrics\.jsonl"):
        metrics.remove_after(1)


def test_nan_is_written_as_null(metrics):
    diverged = {**json.loads(line(1)), "train_nats_per_char": float("nan"), "validation_bits_per_char": float("inf")}
    metrics.add(diverged)
    written = metrics.path.read_text().splitlines()[-1]
    assert json.loads(written) == {**diverged, "train_nats_per_char": None, "validation_bits_per_char": None}
    assert "NaN" not in written
    metrics.add(json.loads(line(2)))
    assert metrics.remove_after(2) == []
