import json
import os
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from charloom.artifacts import read_tensor_file, write_tensor_file
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
def test_what_is_written_is_read(tmp_path_factory, tensors, metadata):
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


def test_nothing_is_left_beside_the_file(tmp_path):
    write_tensor_file(tmp_path / "x.safetensors", {}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]
    assert (tmp_path / "x.safetensors").stat().st_mode & 0o077  # as readable as the umask lets it be


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


def test_a_pipe_is_no_model_and_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelFileError, match="is no file"):
        read_tensor_file(tmp_path / "pipe")


@pytest.mark.parametrize("keep", [0, 4, 8, 20, -1])
def test_a_truncated_file_is_refused(tmp_path, keep):
    path = tmp_path / "x.safetensors"
    write_tensor_file(path, {"a": np.ones(4, np.float32)}, {})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelFileError, match="no model file, or a damaged one"):
        read_tensor_file(path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"just text, as long as you like it to be", "no model file"),
        (struct.pack("<Q", 2**60) + b"{}", "no model file"),
        (struct.pack("<Q", 2) + b"{}", "not charloom's"),
        (b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00.", "no model file"),  # a pickle
    ],
)
def test_other_files_are_refused(tmp_path, data, words):
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(ModelFileError, match=words):
        read_tensor_file(tmp_path / "x")


@pytest.mark.parametrize("text", ["not json", "[1]", "{", "[" * 200_000])
def test_metadata_that_is_no_json_object_is_refused(tmp_path, text):
    from safetensors.numpy import save

    (tmp_path / "x").write_bytes(save({}, {"charloom": text}))
    with pytest.raises(ModelFileError, match="its metadata is no JSON"):
        read_tensor_file(tmp_path / "x")


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(ModelFileError, match="No such file"):
        read_tensor_file(tmp_path / "none")
    with pytest.raises(ModelFileError, match="Is a directory"):
        read_tensor_file(tmp_path)
