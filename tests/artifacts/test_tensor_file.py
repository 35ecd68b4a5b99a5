import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from charloom.artifacts import parse_json, read_tensor_file, write_tensor_file
from charloom.errors import ModelFileError, OutputError

tensors_strategy = st.dictionaries(
    st.text("abc.01", min_size=1, max_size=8),
    hnp.arrays(
        np.float32, hnp.array_shapes(min_dims=1, max_dims=3, max_side=4), elements=st.floats(-1e3, 1e3, width=32)
    ),
    max_size=4,
)
json_strategy = st.dictionaries(
    st.text(max_size=5), st.one_of(st.text(), st.integers(-5, 5), st.booleans()), max_size=4
)


@given(tensors_strategy, json_strategy)
@settings(max_examples=50, deadline=None)
def test_a_tensor_file_round_trips(tmp_path_factory, tensors, metadata):
    path = tmp_path_factory.mktemp("file") / "x.safetensors"
    write_tensor_file(path, tensors, metadata)
    got_tensors, got_metadata = read_tensor_file(path)
    assert got_metadata == metadata
    assert got_tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(got_tensors[name], tensor)


def test_the_format_is_safetensors_byte_for_byte(tmp_path):
    path = tmp_path / "x.safetensors"
    write_tensor_file(path, {"b": np.array([1.0, 2.0], np.float32), "a": np.zeros((1, 2), np.float32)}, {"k": "ü"})
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    assert json.loads(header.pop("__metadata__")["charloom"]) == {"k": "ü"}
    assert header == {
        "a": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]},
        "b": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]},
    }
    assert data[8 + length :] == struct.pack("<4f", 0, 0, 1, 2)
    write_tensor_file(
        tmp_path / "y.safetensors",
        {"a": np.zeros((1, 2), np.float32), "b": np.array([1.0, 2.0], np.float32)},
        {"k": "ü"},
    )
    assert (tmp_path / "y.safetensors").read_bytes() == data


def test_no_temporary_file_is_left(tmp_path):
    write_tensor_file(tmp_path / "x.safetensors", {}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]
    assert (tmp_path / "x.safetensors").stat().st_mode & 0o077  # as readable as the umask allows


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    write_tensor_file(path, {}, {"old": 1})

    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(OutputError, match=r"No space left on device\. Free some space"):
        write_tensor_file(path, {}, {"new": 1})
    assert read_tensor_file(path)[1] == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_a_link_stays_a_link_and_a_private_file_private(tmp_path):
    path = tmp_path / "x.safetensors"
    write_tensor_file(path, {}, {"old": 1})
    path.chmod(0o600)
    (tmp_path / "link").symlink_to(path)
    write_tensor_file(tmp_path / "link", {}, {"new": 1})
    assert (tmp_path / "link").is_symlink()
    assert read_tensor_file(path)[1] == {"new": 1}
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_pipe_is_refused_without_blocking(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelFileError, match="is not a file"):
        read_tensor_file(tmp_path / "pipe")


@pytest.mark.parametrize("keep", [0, 4, 8, 20, -1])
def test_a_truncated_file_is_refused(tmp_path, keep):
    path = tmp_path / "x.safetensors"
    write_tensor_file(path, {"a": np.ones(4, np.float32)}, {})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelFileError, match="not a model file, or it is damaged"):
        read_tensor_file(path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"just text, as long as you like it to be", "not a model file"),
        (struct.pack("<Q", 2**60) + b"{}", "not a model file"),
        (struct.pack("<Q", 2) + b"{}", "not a charloom model"),
        (b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00.", "not a model file"),  # a pickle
    ],
)
def test_other_files_are_refused(tmp_path, data, words):
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(ModelFileError, match=words):
        read_tensor_file(tmp_path / "x")


@pytest.mark.parametrize("text", ["not json", "[1]", "{", "[" * 200_000])
def test_metadata_that_is_not_a_json_object_is_refused(tmp_path, text):
    from safetensors.numpy import save

    (tmp_path / "x").write_bytes(save({}, {"charloom": text}))
    with pytest.raises(ModelFileError, match=r"its metadata is (not a JSON object|damaged: it)"):
        read_tensor_file(tmp_path / "x")


def with_header(path, header, data=b""):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


OURS = {"__metadata__": {"charloom": "{}"}}


@pytest.mark.parametrize(
    ("header", "data", "words"),
    [
        ({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}, b"", "its tensors should have"),
        ({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 8]}}, bytes(8), "wrong position or size for 'a'"),
        (
            {"a": {"dtype": "F32", "shape": [2**63] * 8, "data_offsets": [0, 8]}},
            bytes(8),
            "wrong position or size for 'a'",
        ),
        ({"a": {"dtype": "F32", "shape": [1] * 9, "data_offsets": [0, 4]}}, bytes(4), r"'a': shape is .* length <= 8"),
        ({"a": {"dtype": "F32", "shape": [0, 2**62, 4], "data_offsets": [0, 0]}}, b"", "not a model file"),
        ({"a": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}, bytes(4), r"shape\[0\] is -1, expected"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}, b"", "wrong position or size for 'a'"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, bytes(8), "wrong position or size for 'a'"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(8), "should have 4 bytes, but have 8"),
        ({"a": {"dtype": "O", "shape": [1], "data_offsets": [0, 8]}}, bytes(8), "'a' has the unknown type 'O'"),
        ({"a": {"dtype": 3, "shape": [1], "data_offsets": [0, 8]}}, bytes(8), "'a': dtype is 3, expected a string"),
        ({"a": {"dtype": "F32", "shape": [1]}}, bytes(4), "'a': data_offsets is missing"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], "b": 1}}, bytes(4), "'a': b is not a field"),
        ({"\x1b" * 999: 3}, b"", r"'\\x1b.*…: its content is 3, expected an object"),
        ({"__metadata__": {"charloom": 3}}, b"", "its metadata values are not all strings"),
        ({"__metadata__": [1]}, b"", "its metadata values are not all strings"),
        ([1], b"", "its header is not a JSON object"),
    ],
)
def test_a_header_that_does_not_match_the_data_is_refused(tmp_path, header, data, words):
    with_header(tmp_path / "x", OURS | header if isinstance(header, dict) else header, data)
    with pytest.raises(ModelFileError, match=words) as caught:
        read_tensor_file(tmp_path / "x")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("size", range(8))
def test_a_file_shorter_than_the_header_length_is_refused(tmp_path, size):
    (tmp_path / "x").write_bytes(bytes(size))
    with pytest.raises(ModelFileError, match="it is shorter than a header"):
        read_tensor_file(tmp_path / "x")


@pytest.mark.parametrize("size", [8, 9, 15, 16, 23, 24, 31, 1_000])
def test_a_header_length_beyond_the_file_is_refused(tmp_path, size):
    for length in (size - 7, size + 7, 2**63):
        (tmp_path / "x").write_bytes(struct.pack("<Q", length) + b" " * (size - 8))
        message = f"its header should be {length:,} bytes long, but the file has {size:,} bytes"
        with pytest.raises(ModelFileError, match=message):
            read_tensor_file(tmp_path / "x")
    (tmp_path / "x").write_bytes(struct.pack("<Q", size - 8) + b" " * (size - 8))
    with pytest.raises(ModelFileError, match="header is damaged: it is not valid JSON"):
        read_tensor_file(tmp_path / "x")


@pytest.mark.parametrize("surplus", [1, 8, 24, 100, 1_000])
def test_bytes_after_the_last_tensor_are_refused(tmp_path, surplus):
    with_header(tmp_path / "x", OURS, bytes(surplus))
    with pytest.raises(ModelFileError, match=f"its tensors should have 0 bytes, but have {surplus:,}"):
        read_tensor_file(tmp_path / "x")


def test_tensors_that_share_bytes_are_refused(tmp_path):
    one = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    with_header(tmp_path / "x", OURS | {"a": one, "b": one}, bytes(4))
    with pytest.raises(ModelFileError, match="wrong position or size for 'b'"):
        read_tensor_file(tmp_path / "x")


@pytest.mark.parametrize("change", ["cut", "grown", "written over"])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch, change):
    path = tmp_path / "x.safetensors"
    write_tensor_file(path, {"a": np.ones(100_000, np.float32)}, {})
    data = path.read_bytes()

    def parse_after_change(*arguments):
        if change == "cut":
            os.truncate(path, 1000)  # a mapped file would crash the process here
        elif change == "grown":
            os.truncate(path, len(data) + 8)
        else:
            path.write_bytes(data)
            os.utime(path, ns=(0, 0))
        return parse_json(*arguments)

    monkeypatch.setattr("charloom.artifacts.tensor_file.parse_json", parse_after_change)
    with pytest.raises(ModelFileError, match=r"it changed while it was read\. Try again when it is complete"):
        read_tensor_file(path)


def test_a_device_is_refused():
    with pytest.raises(ModelFileError, match="is not a file"):
        read_tensor_file(Path("/dev/zero"))


def test_an_impossible_file_name_is_refused():
    with pytest.raises(ModelFileError, match=r"a\\x00b: embedded null byte"):
        read_tensor_file(Path("a\0b"))


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(ModelFileError, match="No such file"):
        read_tensor_file(tmp_path / "none")
    with pytest.raises(ModelFileError, match="Is a directory"):
        read_tensor_file(tmp_path)
